"""The app that an institution runs beside its records."""
