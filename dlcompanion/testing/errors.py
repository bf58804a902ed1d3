"""ConformanceError, and the runner that turns a failed check into one."""


class ConformanceError(AssertionError):
    """A component breaks one of the rules that the checks stand for.

    Args:
        component: String, the component, for example ``"layer Dense"``.
        check: String, the short name of the check that failed.
        expected: String, what the rule demands.
        received: String, what the component did.
        remedy: String, what usually puts it right.

    Attributes:
        check: The short name, for example ``"config"``, ``"mask"`` or ``"seed"``.
        component: The component.

    Example:
        >>> error = ConformanceError("layer A", "mask", "this", "that", "Use it.")
        >>> error.check
        'mask'
    """

    def __init__(self, component, check, expected, received, remedy):
        self.component = component
        self.check = check
        super().__init__(
            f"{component} fails the check {check!r}.\n"
            f"Expected: {expected}\nReceived: {received}\nRemedy: {remedy}"
        )


def run_checks(subject, checks, skip):
    """Run every check of a table on one subject, in order.

    Args:
        subject: Object handed to each check; ``subject.component`` names it and
            ``subject.check`` is set to the name of the running check.
        checks: Dictionary from the name of a check to a function of the subject.
        skip: Names of checks to leave out.

    Raises:
        ConformanceError: At the first check that fails, also if it fails by an
            exception of another kind.
        ValueError: If ``skip`` names a check that does not exist.
    """
    skip = (skip,) if isinstance(skip, str) else tuple(skip)
    unknown = sorted(set(skip) - set(checks))
    if unknown:
        raise ValueError(
            f"skip may name only these checks: {', '.join(checks)}. "
            f"Received: skip={skip!r}"
        )
    for name, check in checks.items():
        if name in skip:
            continue
        subject.check = name
        try:
            check(subject)
        except ConformanceError:
            raise
        except Exception as error:
            raise ConformanceError(
                subject.component,
                subject.check,
                "no exception",
                f"{type(error).__name__}: {error}",
                "see the traceback above; if the check does not apply to this "
                f"component, leave it out with skip=({name!r},).",
            ) from error
