"""The site, and the pictures on it. The README beside this file says how they are made."""
