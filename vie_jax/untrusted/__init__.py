"""Files from anybody: read as data, within limits that are checked first."""
