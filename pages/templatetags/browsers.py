"""What a person calls the browser that a user-agent header is from."""

from django import template

register = template.Library()

# The first that is named wins: browsers call themselves by the names of others too.
BROWSERS = {"Edg/": "Edge", "OPR/": "Opera", "Firefox/": "Firefox", "Chrome/": "Chrome", "Safari/": "Safari"}
SYSTEMS = {"Android": "Android", "iPhone": "iPhone", "iPad": "iPad", "Windows": "Windows", "Mac OS X": "Mac"} | {
    "Linux": "Linux"
}
MAX_OTHER_CHARS = 40


@register.filter
def browser(user_agent: str) -> str:
    """Return such as "Firefox on Linux"; of what is no known browser, its beginning."""
    name = next((name for mark, name in BROWSERS.items() if mark in user_agent), "")
    system = next((name for mark, name in SYSTEMS.items() if mark in user_agent), "")
    if not name:
        return user_agent[:MAX_OTHER_CHARS] or "Unknown browser"
    return f"{name} on {system}" if system else name
