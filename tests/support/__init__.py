"""Problems, networks and records that several test modules share."""
