"""A figure that is drawn once and then written in any format.

To draw, matplotlib walks over all parts of a figure and measures every text; to write a file, it
passes lines, markers and texts to the format. The first takes most of the time and is the same for
all formats.
"""

from __future__ import annotations

import copy
from typing import Any

from matplotlib.backend_bases import GraphicsContextBase, RendererBase
from matplotlib.figure import Figure
from matplotlib.textpath import text_to_path
from matplotlib.transforms import Affine2D, Bbox, TransformedBbox, TransformedPath

POINTS = 72  # per inch
# Which arguments of a call are transforms to the page.
TRANSFORMS = {"draw_path": (1,), "draw_markers": (1, 3), "draw_path_collection": (0, 4)}


class Recorder(RendererBase):
    """Keeps what a figure of 72 dots per inch draws.

    Args:
        figure: its size is that of the page.
        dpi: resolution of images in it.
    """

    def __init__(self, figure: Figure, dpi: float) -> None:
        super().__init__()
        self.width, self.height = figure.bbox.size
        self.dpi = dpi
        self.calls: list[tuple[str, GraphicsContextBase | None, tuple[Any, ...], dict]] = []

    def flipy(self) -> bool:
        return False

    def get_canvas_width_height(self) -> tuple[float, float]:
        return self.width, self.height

    def get_image_magnification(self) -> float:
        return self.dpi / POINTS

    def get_text_width_height_descent(self, s: Any, prop: Any, ismath: Any) -> Any:
        return text_to_path.get_text_width_height_descent(s, prop, ismath)

    def _keep(self, name: str, gc: GraphicsContextBase, *args: Any, **more: Any) -> None:
        self.calls.append((name, copy.copy(gc), args, more))

    def draw_path(self, gc: Any, *args: Any, **more: Any) -> None:
        self._keep("draw_path", gc, *args, **more)

    def draw_markers(self, gc: Any, *args: Any, **more: Any) -> None:
        self._keep("draw_markers", gc, *args, **more)

    def draw_path_collection(self, gc: Any, *args: Any, **more: Any) -> None:
        self._keep("draw_path_collection", gc, *args, **more)

    def draw_image(self, gc: Any, *args: Any, **more: Any) -> None:
        self._keep("draw_image", gc, *args, **more)

    def draw_text(self, gc: Any, *args: Any, **more: Any) -> None:
        self._keep("draw_text", gc, *args, **more)

    def open_group(self, s: str, gid: str | None = None) -> None:
        self.calls.append(("open_group", None, (s, gid), {}))

    def close_group(self, s: str) -> None:
        self.calls.append(("close_group", None, (s,), {}))


class Recorded(Figure):
    """What another figure draws, for any canvas; that figure must stay as it is.

    Args:
        figure: has its final layout.
        dpi: resolution of this figure as a picture, and of images in files of lines.
    """

    def __init__(self, figure: Figure, dpi: float) -> None:
        super().__init__(figsize=tuple(figure.get_size_inches()), dpi=dpi)
        figure.dpi = POINTS
        self.recorder = Recorder(figure, dpi)
        figure.draw(self.recorder)

    def draw(self, renderer: Any) -> None:
        scale = renderer.points_to_pixels(1.0)
        larger = Affine2D().scale(scale)
        for name, gc, args, more in self.recorder.calls:
            if gc is None:
                getattr(renderer, name)(*args)
                continue
            own = renderer.new_gc()
            own.copy_properties(gc)
            if scale != 1:
                _enlarge(own, larger)
                args = _enlarged(name, args, larger)
                if name == "draw_markers":
                    own.set_snap(None)  # the figure decided for a smaller marker
            if name == "draw_text" and renderer.flipy():
                x, y, *rest = args
                args = (x, self.recorder.height * scale - y, *rest)
            getattr(renderer, name)(own, *args, **more)
            own.restore()


def _enlarge(gc: Any, larger: Affine2D) -> None:
    """Enlarge what a drawing is clipped to."""
    rectangle = gc.get_clip_rectangle()
    if rectangle is not None:
        gc.set_clip_rectangle(TransformedBbox(Bbox(rectangle.get_points()), larger))
    path, transform = gc.get_clip_path()
    if path is not None:
        gc.set_clip_path(TransformedPath(path, transform + larger))


def _enlarged(name: str, args: tuple[Any, ...], larger: Affine2D) -> tuple[Any, ...]:
    """The arguments of a call on a larger page."""
    if name in TRANSFORMS:
        places = TRANSFORMS[name]
        return tuple(arg + larger if i in places else arg for i, arg in enumerate(args))
    x, y, *rest = args  # of a text or an image
    return (*larger.transform((x, y)), *rest)
