"""The array libraries, what each can do, and what workers inherit. Imports only `invconv`."""
