"""The tabs of the page, one file each. `build` makes the components of a tab and connects them to its work."""
