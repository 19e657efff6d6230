"""How the page is served: to this machine only unless asked otherwise, and to browsers that need nobody else."""

import socket
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, one_line
from .uploads import Limits

if TYPE_CHECKING:
    import gradio as gr

HOST, PORT = "127.0.0.1", 7860
# Browsers ask this server and no other, whatever a version of Gradio may put into its page.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self' data: blob:; "
    "base-uri 'self'; form-action 'self'; object-src 'none'"
)
# Visitors whose latest answer Gradio remembers, megabytes of pictures each. Nothing depends on it; it would be 10000.
SESSIONS = 32
_FOLDER = Path(__file__).parent


def serve(
    page: "gr.Blocks", host: str = HOST, port: int | None = None, share: bool = False, limits: Limits | None = None
) -> str:
    """Starts serving in the background.

    Args:
        page: of `build_page`.
        host: address to listen on; "0.0.0.0" for all of the machine's.
        port: None for the first free one from 7860 on.
        share: whether Gradio opens a public tunnel to it.
        limits: that the page was built with; larger uploads are cut off while they come in.

    Returns:
        The page's address; with `share` the public one.

    Raises:
        InputError: the port is taken, or the address is not this machine's.
    """
    _check_address(host, port)
    # Starlette comes with Gradio, and so may be absent where types are checked.
    middleware = import_module("starlette.middleware").Middleware
    _, local, public = page.launch(
        server_name=host,
        server_port=port,
        share=share,
        theme=make_theme(),
        css_paths=[_FOLDER / "style.css"],
        favicon_path=_FOLDER / "favicon.svg",
        state_session_capacity=SESSIONS,
        max_file_size=(limits or Limits()).file_bytes,
        app_kwargs={"middleware": [middleware(ContentPolicy)]},
        footer_links=[],
        prevent_thread_lock=True,
        show_error=False,
        ssr_mode=False,
        inbrowser=False,
        inline=False,
        quiet=True,
    )
    return str(public or local)


def _check_address(host: str, port: int | None) -> None:
    """Refuses what cannot be listened on; Gradio would try a hundred ports of it, for minutes."""
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port or 0))
    except OSError as error:
        place = f"{host}:{port}" if port else host
        raise InputError("an address to listen on", f"{place}: {one_line(error)}", "another --host or --port") from None


def make_theme() -> Any:
    """Gradio's theme with a font that comes in its wheel, so that none is fetched.

    Of its weights only 400 and 700 hold all letters.
    """
    import gradio as gr
    from gradio.themes.utils.fonts import LocalFont

    return gr.themes.Base(
        primary_hue="indigo",
        neutral_hue="slate",
        radius_size="lg",
        font=[LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"],
        font_mono=["ui-monospace", "Consolas", "monospace"],
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        block_title_text_color="*neutral_800",
        block_title_text_color_dark="*neutral_200",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_300",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_width="1px",
        block_label_text_weight="600",
        block_title_text_weight="600",
        button_large_text_weight="600",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_text_color="white",
    )


class ContentPolicy:
    """ASGI middleware that adds `POLICY` to every answer."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, send_with_policy)
