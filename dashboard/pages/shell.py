"""What every page sits in: header, navigation, theme, service state."""

from __future__ import annotations

import dash_mantine_components as dmc
from dash import dcc, html
from dash.development.base_component import Component

from dashboard import ids

NAVIGATION = (
    ("Sweeps", "/"),
    ("New sweep", "/new"),
    ("Compare laws", "/laws"),
    ("Dynamics", "/dynamics"),
    ("Curvature", "/curvature"),
    ("Workers", "/workers"),
)


def shell() -> Component:
    """The application's frame."""
    header = dmc.Group(
        [
            dcc.Link(
                dmc.Group(
                    [
                        html.Img(src="/assets/mark.svg", alt="", width=28, height=28),
                        dmc.Text("lora_alpha", fw=700, size="lg"),
                    ],
                    gap=8,
                ),
                href="/",
                className="plain",
            ),
            html.Nav(
                [dcc.Link(name, href=path, className="nav-link") for name, path in NAVIGATION],
                className="nav",
                **{"aria-label": "Pages"},
            ),
            dmc.Group(
                [
                    html.Div(id=ids.SERVICE_STATE),
                    dmc.Button(
                        "Dark",
                        id=ids.THEME_BUTTON,
                        variant="default",
                        size="xs",
                        **{"aria-label": "Switch between light and dark"},
                    ),
                ],
                gap="sm",
                ml="auto",
            ),
        ],
        h="100%",
        px="lg",
        gap="xl",
        wrap="nowrap",
    )
    return dmc.MantineProvider(
        [
            dcc.Location(id=ids.URL, refresh="callback-nav"),
            dcc.Store(id=ids.THEME, storage_type="local"),
            dcc.Interval(id=ids.SERVICE_TICK, interval=5000),
            dmc.AppShell(
                [
                    dmc.AppShellHeader(header),
                    dmc.AppShellMain(
                        dmc.Container([html.Div(id=ids.NOTICE), html.Div(id=ids.CONTENT)], size=1360, py="md")
                    ),
                ],
                header={"height": 58},
                padding=0,
            ),
        ],
        id=ids.PROVIDER,
        theme={
            "primaryColor": "cyan",
            "fontFamily": "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif",
            "headings": {"fontWeight": "650"},
            "defaultRadius": "md",
        },
    )
