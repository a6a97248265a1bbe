"""docker-compose.yml and what it mounts, builds and runs. There is no Docker engine here: nothing of it is run.

The file is checked against the compose specification's own JSON schema (as shipped by check-jsonschema) and for
consistency: whatever a service names must exist, and its command must be one that our command lines take.
"""

from __future__ import annotations

import importlib.resources
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import jsonschema  # type: ignore[import-untyped]
import pytest
import typer.main
import yaml
from fixtures.jd import jd_topics
from places import REPOSITORY

from deploy.kafka.broker import topics_of
from streaming.config import ENV_PREFIX, Config
from streaming.ops.metrics import Metrics
from streaming.web.listen import TOKEN_VARIABLE

PROMETHEUS = REPOSITORY / "deploy" / "prometheus"
GRAFANA = REPOSITORY / "deploy" / "grafana"
VARIABLE = re.compile(r"(?<!\$)\$\{(?P<name>\w+)(?P<default>:?[-?][^}]*)?\}")


@pytest.fixture(scope="module")
def text() -> str:
    return (REPOSITORY / "docker-compose.yml").read_text()


@pytest.fixture(scope="module")
def compose(text: str) -> dict[str, Any]:
    """The file with its anchors merged and its variables replaced by their defaults."""

    def default(match: re.Match[str]) -> str:
        return (match["default"] or "").lstrip(":-?")

    loaded: dict[str, Any] = yaml.safe_load(VARIABLE.sub(default, text))
    return loaded


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


def compose_schema() -> dict[str, Any]:
    vendor = importlib.resources.files("check_jsonschema.builtin_schemas.vendor")
    schema: dict[str, Any] = json.loads((vendor / "compose-spec.json").read_text())
    return schema


def test_the_file_keeps_to_the_compose_specification(compose: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(compose_schema()).validate(compose)


def test_the_schema_refuses_what_compose_does_not_know(compose: dict[str, Any]) -> None:
    misspelt = json.loads(json.dumps(compose))
    misspelt["services"]["scorer"]["heathcheck"] = {}
    with pytest.raises(jsonschema.ValidationError, match="heathcheck"):
        jsonschema.Draft202012Validator(compose_schema()).validate(misspelt)


def test_dependencies_exist_and_can_be_met(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in services, f"{name} depends on {needed}"
            target = services[needed]
            match how["condition"]:
                case "service_healthy":
                    assert "healthcheck" in target, f"{name} waits for the health of {needed}, which has no check"
                case "service_completed_successfully":
                    assert target["restart"] == "no", f"{name} waits for the end of {needed}, which is restarted"
            profiles = set(target.get("profiles", []))
            always_there = not profiles or profiles <= set(service.get("profiles", []))
            assert always_there or how.get("required") is False, f"{name} needs {needed}, which its profile leaves out"


def test_the_model_server_has_one_name_in_both_profiles(services: dict[str, dict[str, Any]]) -> None:
    url = services["scorer"]["environment"]["JD_INTENT__MODEL__URL"]
    host = url.partition(":")[0]
    assert services[host]["profiles"] == ["cpu"]
    assert services["triton-gpu"]["profiles"] == ["gpu"]
    assert services["triton-gpu"]["networks"]["default"]["aliases"] == [host]


def test_volumes_are_declared_and_used_and_paths_exist(compose: dict[str, Any]) -> None:
    used = set()
    for name, service in compose["services"].items():
        targets = []
        for volume in service.get("volumes", []):
            source, target = volume.split(":")[:2]
            targets.append(target)
            if not source.startswith((".", "/")):
                used.add(source)
            elif service.get("profiles") != ["gpu"]:  # its folders are the user's: they come out of a GPU training
                assert (REPOSITORY / source).exists(), f"{name} mounts {source}"
        assert len(targets) == len(set(targets)), f"{name} mounts twice at one place"
    assert used == set(compose["volumes"])


def test_host_ports_differ_and_stay_on_loopback(services: dict[str, dict[str, Any]]) -> None:
    published = []
    for service in services.values():
        for port in service.get("ports", []):
            address, host, _ = port.split(":")
            assert address == "127.0.0.1"
            published.append(host)
    assert len(published) == len(set(published))


def test_every_variable_has_a_default_and_is_in_the_example(text: str) -> None:
    example = {
        line.split("=")[0]: line.split("=", 1)[1]
        for line in (REPOSITORY / ".env.example").read_text().splitlines()
        if line and not line.startswith("#")
    }
    used = {}
    for match in VARIABLE.finditer(text):
        assert match["default"], f"{match[0]} has no default: `docker compose config` would warn and use ''"
        if match["default"].startswith(":?"):  # a secret: made for each machine, in no file of this repository
            assert match["name"] == TOKEN_VARIABLE
            continue
        used[match["name"]] = match["default"].lstrip(":-?")
    assert used == {name: value for name, value in example.items() if name != "COMPOSE_PROFILES"}
    assert not any(re.search(r"PASSWORD|SECRET|TOKEN", name) for name in example)


def test_images_have_a_tag(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        tag = service["image"].rpartition(":")[2]
        # oneflow-serving has no numbered tag
        assert re.match(r"v?\d+(\.\d+)+", tag) or name == "triton-gpu", f"{name}: {service['image']}"


def test_services_that_stay_are_watched(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        if service.get("restart") != "no":
            assert service["restart"] == "unless-stopped", name
            assert service["healthcheck"]["test"][0] == "CMD", name


def test_the_broker_makes_the_topics_of_the_data_path(services: dict[str, dict[str, Any]]) -> None:
    script = services["topics"]["command"][-1]
    named = dict(spec.split(":") for spec in re.findall(r"\S+:\d+(?=[\s;])", script.splitlines()[0]))
    assert {topic: int(partitions) for topic, partitions in named.items()} == topics_of(jd_topics())


def test_kafka_is_one_broker_that_knows_its_own_name(services: dict[str, dict[str, Any]]) -> None:
    settings = services["kafka"]["environment"]
    listeners = dict(word.split("://:") for word in settings["KAFKA_LISTENERS"].split(","))
    advertised = dict(word.split("://") for word in settings["KAFKA_ADVERTISED_LISTENERS"].split(","))
    assert advertised["INTERNAL"] == f"kafka:{listeners['INTERNAL']}"
    assert services["scorer"]["environment"]["JD_INTENT__KAFKA__BOOTSTRAP_SERVERS"] == advertised["INTERNAL"]
    assert services["kafka"]["ports"][0].endswith(f":{listeners['EXTERNAL']}")
    assert f"@kafka:{listeners['CONTROLLER']}" in settings["KAFKA_CONTROLLER_QUORUM_VOTERS"]
    assert settings["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


def test_the_environment_sets_keys_that_exist(
    services: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from streaming.config import load

    for name in ("scorer", "serve"):
        with monkeypatch.context() as patch:
            set_ = services[name]["environment"]
            assert set_
            for variable, value in set_.items():
                assert variable.startswith(ENV_PREFIX) or (name, variable) == ("serve", TOKEN_VARIABLE)
                patch.setenv(variable, str(value))
            config = load(REPOSITORY / "deploy" / "scorer.toml")
        assert config.kafka.bootstrap_servers == "kafka:9092"
        assert config.model.url == "triton:8001"
        assert config.store.history == "/data"


def address(service: dict[str, Any], option: str) -> str:
    """The value of an option in a service's command."""
    (found,) = [word.partition("=")[2] for word in service["command"] if word.startswith(f"--{option}=")]
    return str(found)


@pytest.mark.parametrize("kind", ["embedded", "openmldb", "openmldb-rest"])
def test_each_store_is_where_the_scorer_looks_for_it(
    services: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    from streaming.config import load

    for variable, value in services["scorer"]["environment"].items():
        monkeypatch.setenv(variable, str(value))
    monkeypatch.setenv("JD_INTENT__STORE__KIND", kind)
    store = load(REPOSITORY / "deploy" / "scorer.toml").store
    assert store.rest.url == f"http://{address(services['openmldb-apiserver'], 'endpoint')}"
    servers = [name for name in services if re.match(r"openmldb-(tablet|nameserver|apiserver)", name)]
    assert len(servers) == 4
    for name in servers:
        assert address(services[name], "zk_cluster") == store.openmldb.zk == "zookeeper:2181"
        assert address(services[name], "zk_root_path") == store.openmldb.zk_path
        host, port = address(services[name], "endpoint").split(":")
        assert host == name == services[name]["hostname"], "the SDK is given this name by ZooKeeper"
        assert services[name]["healthcheck"]["test"][-1].endswith(f"/dev/tcp/{host}/{port}")
    properties = dict(
        line.split("=", 1)
        for line in (REPOSITORY / "deploy" / "openmldb" / "taskmanager.properties").read_text().splitlines()
        if line and not line.startswith("#")
    )
    assert properties["zookeeper.cluster"] == store.openmldb.zk
    assert properties["zookeeper.root_path"] == store.openmldb.zk_path
    assert properties["server.host"] == "openmldb-taskmanager"
    assert services["openmldb-taskmanager"]["healthcheck"]["test"][-1].endswith(f"/{properties['server.port']}")


def test_jobs_are_given_paths_that_the_taskmanager_sees(services: dict[str, dict[str, Any]]) -> None:
    def mounts(name: str) -> dict[str, list[str]]:
        return {target: [source, *mode] for source, target, *mode in (v.split(":") for v in services[name]["volumes"])}

    seen = mounts("openmldb-taskmanager")
    for name in ("openmldb-features", "openmldb-load"):
        assert services[name]["environment"]["JD_INTENT__STORE__KIND"] == "openmldb"
        data = address(services[name], "data")
        assert seen[data] == mounts(name)[data]
    out = Path(address(services["openmldb-features"], "out")).parent
    assert seen[str(out)][0] == mounts("openmldb-features")[str(out)][0]
    assert "ro" not in seen[str(out)], "the job writes there"


def test_the_scorer_is_watched_on_the_port_that_it_listens_on(services: dict[str, dict[str, Any]]) -> None:
    port = Config().http.port
    assert services["scorer"]["ports"] == [f"127.0.0.1:9108:{port}"]
    assert f"127.0.0.1:{port}/healthz" in services["scorer"]["healthcheck"]["test"][-1]
    assert services["scorer"]["environment"]["JD_INTENT__HTTP__HOST"] == "0.0.0.0"
    words = services["serve"]["command"]
    assert (words[words.index("--host") + 1], words[words.index("--allow-host") + 1]) == ("0.0.0.0", "serve")
    assert services["serve"]["environment"][TOKEN_VARIABLE], "it does not start without a token"
    option = services["serve"]["command"].index("--port")
    assert f"127.0.0.1:{services['serve']['command'][option + 1]}/" in services["serve"]["healthcheck"]["test"][-1]


def our_commands(services: dict[str, dict[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """Every call of our own command lines, with the service that makes it."""
    for name, service in services.items():
        command = service.get("command", [])
        if not service["image"].startswith("jd-intent"):
            continue
        if command[0] == "bash":
            script = command[-1].replace("||", "\n")
            lines = [shlex.split(line) for line in script.splitlines()]
            yield from ((name, line) for line in lines if line and line[0].startswith("jd-intent"))
        else:
            yield name, command


def test_commands_are_ours_with_options_that_they_take(services: dict[str, dict[str, Any]]) -> None:
    import batch.cli.commands
    import streaming.cli.commands

    programs = {"jd-intent-score": streaming.cli.commands.app, "jd-intent-batch": batch.cli.commands.app}
    seen: set[tuple[str, str]] = set()
    for service, words in our_commands(services):
        if words[0] == "python":
            continue
        program: Any = typer.main.get_command(programs[words[0]])
        # Parses options and their types, and misses what is required, as the command line does; nothing is run.
        with program.commands[words[1]].make_context(words[1], words[2:]):
            pass
        seen.add((service, words[1]))
    assert seen == {
        ("generate", "generate"),
        ("features", "extract"),
        ("features", "prepare"),
        ("train", "train"),
        ("train", "export"),
        ("scorer", "run"),
        ("serve", "serve"),
        ("openmldb-deploy", "deploy"),
        ("openmldb-features", "extract"),
        ("openmldb-load", "load-online"),
    }


def test_the_model_server_takes_its_options(services: dict[str, dict[str, Any]]) -> None:
    command = services["triton"]["command"]
    assert command[:3] == ["python", "-m", "deploy.triton.server"]
    source = (REPOSITORY / "deploy" / "triton" / "server.py").read_text()
    for option in command[3:]:
        assert f'"{option.partition("=")[0]}"' in source, option


@pytest.mark.parametrize("name", ["scorer", "model"])
def test_dockerfiles_copy_what_exists(name: str) -> None:
    lines = (REPOSITORY / "deploy" / f"{name}.Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert len(copied) >= 8
    ignore = (REPOSITORY / ".dockerignore").read_text().splitlines()
    for source in copied:
        assert (REPOSITORY / source).exists(), source
        assert f"!{source.split('/')[0]}" in ignore, f"{source} is not sent to the engine"
    assert any(line.startswith("USER ") for line in lines)
    base = next(line for line in lines if line.startswith("FROM "))
    assert re.fullmatch(r"FROM python:3\.10\.\d+-slim-bookworm", base)


@pytest.mark.parametrize("name", ["scorer", "model"])
def test_images_are_built_from_files_that_exist(compose: dict[str, Any], name: str) -> None:
    build = compose[f"x-{name}"]["build"]
    assert (REPOSITORY / build["context"] / build["dockerfile"]).is_file()


# Of the board: its own page shows them.
LEFT_OUT = {
    f"jd_intent_board_{name}"
    for name in ("label_events", "labels_known_to_seconds", "matured", "pairs", "positives", "scores", "unreadable")
}


def metric_families() -> dict[str, str]:
    """The metrics that scorer, supervisor, predict server and board expose: name → kind."""
    from streaming.board.application import _metrics as board_metrics
    from streaming.ops.workers import Supervisor
    from streaming.predict.application import PredictMetrics

    supervisor, board = Supervisor(Config(), None, 0, REPOSITORY), board_metrics(MagicMock())
    registries = (Metrics().registry, PredictMetrics().registry, supervisor.registry, board)
    return {family.name: family.type for registry in registries for family in registry.collect()}


def metric_names() -> set[str]:
    """As they are asked for: a counter's with its suffix, a histogram's with its suffixes."""
    names = set()
    for name, kind in metric_families().items():
        names |= {
            "counter": {f"{name}_total"},
            "histogram": {f"{name}_{part}" for part in ("bucket", "count", "sum")},
        }.get(kind, {name})
    return names


def test_the_page_of_metrics_has_all_and_no_others() -> None:
    page = (REPOSITORY / "docs" / "reference" / "metrics.md").read_text()
    documented: dict[str, str] = {}
    for names, kind in re.findall(r"^\| (`jd_intent_.*?) \| (\w+) \|", page, re.MULTILINE):
        documented |= dict.fromkeys(re.findall(r"`(\w+)`", names), kind)
    assert documented == {name: kind for name, kind in metric_families().items() if name.startswith("jd_intent_")}


def test_alerts_ask_for_metrics_that_exist_and_name_what_to_do() -> None:
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    document = (REPOSITORY / "docs" / "how-to" / "alerts.md").read_text()
    headings = re.findall(r"^## (\w+)$", document, re.MULTILINE)
    alerts = [rule for group in groups for rule in group["rules"]]
    known = metric_names()
    for rule in alerts:
        asked = set(re.findall(r"(?:jd_intent|process)_\w+", rule["expr"]))
        assert asked <= known, f"{rule['alert']}: {asked - known}"
        assert asked or 'up{job="' in rule["expr"]
        assert rule["annotations"]["runbook"] == f"docs/how-to/alerts.md#{rule['alert'].lower()}"
    assert sorted(rule["alert"] for rule in alerts) == sorted(headings)


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GRAFANA / "dashboards" / "scorer.json").read_text())
    return found


def test_the_dashboard_asks_for_metrics_that_exist_from_the_prometheus_that_is_chosen() -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())["datasources"]
    chosen, instance = dashboard()["templating"]["list"]
    assert (chosen["type"], chosen["query"], chosen["name"]) == ("datasource", source["type"], "datasource")
    assert source["isDefault"]  # which is chosen first
    (marks,) = dashboard()["annotations"]["list"]
    wanted = {"type": source["type"], "uid": "${datasource}"}
    assert instance["datasource"] == marks["datasource"] == wanted
    known = metric_names()
    asked_metric = re.fullmatch(r"label_values\((\w+), instance\)", instance["query"]["query"])
    assert asked_metric is not None
    assert asked_metric[1] in known
    shown = set()
    for panel in dashboard()["panels"]:
        assert panel["type"] == "row" or panel["description"], panel["title"]
        for target in panel.get("targets", []):
            assert panel["datasource"] == target["datasource"] == wanted
            asked = set(re.findall(r"(?:jd_intent|process)_\w+", target["expr"]))
            assert asked or re.search("ALERTS|nv_inference", target["expr"]), panel["title"]
            assert asked <= known, f"{panel['title']}: {asked - known}"
            shown |= asked
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in known if name.startswith("jd_intent")}
    assert families - LEFT_OUT == {
        re.sub(r"_(bucket|count|sum)$", "", name) for name in shown if name.startswith("jd_intent")
    }


def test_a_chosen_scorer_is_the_one_of_every_panel_of_scorers() -> None:
    """An application beside another on one Prometheus: panels that add up both tell of neither."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            metrics = re.findall(r"jd_intent_(?!predict|board)\w+(?:\{[^}]*\})?", target["expr"])
            assert all('instance=~"$instance"' in metric for metric in metrics), target["expr"]


def test_the_panels_lie_side_by_side() -> None:
    taken: set[tuple[int, int]] = set()
    panels = dashboard()["panels"]
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_grafana_finds_what_is_provisioned(services: dict[str, dict[str, Any]]) -> None:
    mounts = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    (provider,) = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "scorer.yml").read_text())["providers"]
    assert mounts["./deploy/grafana/dashboards"] == provider["options"]["path"]
    assert mounts["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/scorer.json"


def test_prometheus_scrapes_the_services_and_reads_the_alerts(services: dict[str, dict[str, Any]]) -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    assert config["rule_files"] == ["alerts.yml"]
    targets = {
        job["job_name"]: target
        for job in config["scrape_configs"]
        for static in job["static_configs"]
        for target in static["targets"]
    }
    for job in re.findall(r'up{job="(\w+)"}', (PROMETHEUS / "alerts.yml").read_text()):
        host, port = targets[job].split(":")
        assert any(published.endswith(f":{port}") for published in services[host]["ports"])
