"""``/_bloomery/faults``: rules of what goes wrong, added and removed while the emulator runs."""

from __future__ import annotations

from aiohttp import web

from bloomery.errors import ConfigurationError
from bloomery.sagemaker.emulator.faults import KINDS, Faults, Rule

PATH = "/_bloomery/faults"


def add_routes(app: web.Application, faults: Faults) -> None:
    """POST adds a rule, GET lists all, and what there is, DELETE removes one (``/ID``) or all."""

    async def add(http: web.Request) -> web.Response:
        try:
            given = await http.json()
            if not isinstance(given, dict):
                raise ConfigurationError("a fault is an object, such as {'kind': 'ThrottlingException', 'times': 2}")
            number = faults.add(Rule.of(given))
        except (ConfigurationError, ValueError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({"id": number}, status=201)

    async def show(http: web.Request) -> web.Response:
        kinds = {kind: {"does": does, "takes": ["times", "fraction", *names]} for kind, (does, names) in KINDS.items()}
        return web.json_response({"faults": faults.list(), "kinds": kinds})

    async def remove(http: web.Request) -> web.Response:
        number = http.match_info.get("id")
        if not faults.remove(None if number is None else int(number)) and number is not None:
            return web.json_response({"error": f"there is no fault {number}"}, status=404)
        return web.json_response({"faults": faults.list()})

    app.router.add_post(PATH, add)
    app.router.add_get(PATH, show)
    app.router.add_delete(PATH, remove)
    app.router.add_delete(f"{PATH}/{{id:[0-9]{{1,9}}}}", remove)
