"""The jobs behind ``minitx <command>``, one module each."""
