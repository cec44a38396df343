"""docker-compose.yml: the file is checked, and its very commands are run against local services."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import yaml

from benchmarks._application import end_process
from lora_alpha.errors import LoraAlphaError
from lora_alpha.request import SweepRequest
from lora_alpha.wire.client import Client

ROOT = Path(__file__).parents[2]
TOKEN = "a-long-random-string-for-this-test"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def test_every_role_is_there_and_waits_for_what_it_needs(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert {"api", "dashboard", "worker-cpu", "worker-gpu", "redis", "postgres"} <= set(services)
    for name in ("api", "redis", "postgres"):
        assert services[name]["healthcheck"]["test"]
    for name in ("api", "dashboard", "worker-cpu", "worker-gpu"):
        needs = services[name]["depends_on"]
        assert all(condition == {"condition": "service_healthy"} for condition in needs.values())
        assert set(needs) <= set(services)
    assert services["worker-gpu"]["profiles"] == ["gpu"]
    assert "redis" not in services["worker-gpu"].get("ports", [])
    for name, service in services.items():
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in compose["volumes"], f"{name} mounts an undeclared volume"


def test_only_api_and_dashboard_are_published_and_no_token_is_built_in(compose: dict[str, Any]) -> None:
    published = {name for name, service in compose["services"].items() if service.get("ports")}
    assert published == {"api", "dashboard"}
    assert compose["x-app"]["environment"]["LORA_ALPHA_TOKEN"].startswith("${LORA_ALPHA_TOKEN:?")


def test_the_dockerfile_copies_what_exists_and_runs_our_program() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = [part for line in lines if line.startswith("COPY ") for part in line.split()[1:-1]]
    assert copied
    assert all((ROOT / part).exists() for part in copied)
    assert 'ENTRYPOINT ["lora-alpha"]' in lines
    assert "USER app" in lines


@pytest.mark.services
def test_its_commands_make_an_installation(
    compose: dict[str, Any], team: dict[str, str], tmp_path: Path
) -> None:
    ports = {"8000": free_port(), "8050": free_port()}
    environment = {
        **os.environ,
        **settings(compose["x-app"]["environment"], team, home=tmp_path),
        "LORA_ALPHA_KEY_PREFIX": team["key_prefix"],
    }
    api, dashboard = (f"http://127.0.0.1:{port}" for port in ports.values())
    with ExitStack() as stack:
        stack.enter_context(running(compose, "api", ports, environment, log=tmp_path))
        client = stack.enter_context(Client(api, token=TOKEN))
        wait_for(client)
        healthcheck(compose["services"]["api"]["healthcheck"]["test"], ports, environment)
        for name in ("dashboard", "worker-cpu"):
            stack.enter_context(running(compose, name, ports, environment, log=tmp_path))
        with pytest.raises(LoraAlphaError), Client(api) as stranger:
            stranger.sweeps()
        sweep = client.create_sweep(
            SweepRequest(workload="mlp", ranks=[1, 4], alphas=[8, 64], seeds=[0], steps=20)
        )
        deadline = time.monotonic() + 60
        while client.sweep(sweep.id).state != "finished":
            assert time.monotonic() < deadline, logs(tmp_path)
            time.sleep(0.2)
        health = client.health()
        assert (health.state, health.num_workers) == ("ok", 1), health
        with psycopg.connect(team["database_url"].replace("+psycopg", "")) as database:
            assert database.execute("SELECT count(*) FROM runs").fetchone() == (4,)
        wait_for_page(dashboard)
        with httpx.Client(base_url=dashboard, headers={"Authorization": f"Bearer {TOKEN}"}) as browser:
            assert browser.get("/_dash-layout").status_code == 200
        assert httpx.get(f"{dashboard}/_dash-layout").status_code in {401, 303}


def settings(given: dict[str, str], team: dict[str, str], *, home: Path) -> dict[str, str]:
    """The file's environment with its variables filled in and its hosts replaced by local ones."""
    values = {name: re.sub(r"\$\{LORA_ALPHA_TOKEN:\?[^}]*\}", TOKEN, text) for name, text in given.items()}
    values = {name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text) for name, text in values.items()}
    assert re.fullmatch(r"postgresql\+psycopg://\w+:\w+@postgres:5432/\w+", values["LORA_ALPHA_DATABASE_URL"])
    assert re.fullmatch(r"redis://redis:6379/\d", values["LORA_ALPHA_BROKER_URL"])
    return values | {
        "LORA_ALPHA_DATABASE_URL": team["database_url"],
        "LORA_ALPHA_BROKER_URL": team["broker_url"],
        "LORA_ALPHA_HOME": str(home / "data"),
    }


def local(words: list[str], ports: dict[str, int]) -> list[str]:
    """A command with container ports and hosts replaced by this machine's."""
    found = []
    for word in words:
        text = word.replace("http://api:", "http://127.0.0.1:")
        for inside, here in ports.items():
            text = re.sub(rf"\b{inside}\b", str(here), text)
        found.append(text)
    return found


@contextmanager
def running(
    compose: dict[str, Any], name: str, ports: dict[str, int], environment: dict[str, str], *, log: Path
) -> Iterator[None]:
    command = [sys.executable, "-m", "command_line", *local(compose["services"][name]["command"], ports)]
    with (log / f"{name}.log").open("w") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
    try:
        yield
    finally:
        end_process(process)


def healthcheck(test: list[str], ports: dict[str, int], environment: dict[str, str]) -> None:
    kind, program, *words = test
    assert (kind, program) == ("CMD", "python"), shlex.join(test)
    subprocess.run([sys.executable, *local(words, ports)], env=environment, check=True, timeout=10)


def wait_for(client: Client) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            client.health()
            return
        except LoraAlphaError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def wait_for_page(address: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            httpx.get(address)
            return
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def logs(folder: Path) -> str:
    return "\n".join(f"== {path.name}\n{path.read_text()[-2000:]}" for path in folder.glob("*.log"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
