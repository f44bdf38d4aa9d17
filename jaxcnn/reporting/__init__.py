"""What a user sees: tables, figures, the terminal. Imports nothing else of the package."""
