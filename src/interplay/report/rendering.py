"""How every page is made of its template."""

from typing import Any


def render(template: str, **values: Any) -> str:
    """The page that a template of `report/templates` gives; text in `values` is escaped, an unknown name is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("interplay.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
