"""The one exception type that linprobe raises about its inputs."""


class LinprobeError(Exception):
    """Raised on input that cannot be used: what was wrong, what was expected, what to do.

    Everything that a user can cause is raised as this type, so that the command line can show
    it as one line.
    """
