"""Drop-ins for flow libraries as flows of those libraries, and the rules that each library has."""
