"""The project as users meet it: wheel, README, command line."""
