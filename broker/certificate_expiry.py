"""Alarms of certificates that end: from 30 days before, and after the end.  Pure.

The sentence changes at each limit and not with each second, so that whoever logs changes logs the
limits.
"""

from broker.clock import DAY_NS, text_of

LIMITS_DAYS = (1, 7, 30)
"""Remaining days at which an alarm is raised, or becomes more urgent."""


def alarm(subject: str, until_ns: int, now_ns: int, *, remedy: str) -> str | None:
    """The alarm of a certificate that ends soon or has ended; None while there is time.

    subject: the certificate, as the sentence's subject.  until_ns: its end.
    """
    moment = f"{text_of(until_ns)[:16].replace('T', ' ')} UTC"
    if until_ns <= now_ns:
        return f"{subject} ended on {moment}: {remedy}"
    for days in LIMITS_DAYS:
        if until_ns - now_ns <= days * DAY_NS:
            within = "a day" if days == 1 else f"{days} days"
            return f"{subject} ends within {within}, on {moment}: {remedy}"
    return None
