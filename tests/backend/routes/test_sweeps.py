from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from backend.services import sweeps
from lora_alpha.request import SweepRequest
from lora_alpha.wire.client import Client

BODY = {"workload": "mlp", "ranks": [1, 4], "alphas": [64, 256], "seeds": [0, 1], "steps": 100}


def fields(answer: Any) -> list[str]:
    return [error["field"] for error in answer.json()["errors"]]


def test_a_sweep_is_created_queued_and_found_again(http: Any) -> None:
    answer = http.post("/api/sweeps", json=BODY)
    assert answer.status_code == 201
    sweep = answer.json()
    assert answer.headers["location"] == f"/api/sweeps/{sweep['id']}"
    assert sweep["state"] == "queued"
    assert sweep["counts"]["total"] == sweep["counts"]["queued"] == 8
    assert http.get(answer.headers["location"]).json()["id"] == sweep["id"]
    assert [item["id"] for item in http.get("/api/sweeps").json()["items"]] == [sweep["id"]]


def test_only_the_workload_is_required(http: Any) -> None:
    sweep = http.post("/api/sweeps", json={"workload": "mlp"}).json()
    assert sweep["counts"]["total"] == 7 * 9 * 3
    assert sweep["spec"]["train"]["steps"] == 300


def test_the_plan_tells_runs_packs_time_and_scales(http: Any) -> None:
    answer = http.post("/api/sweeps/plan", json=BODY)
    assert answer.status_code == 200
    plan = answer.json()
    assert plan["valid"]
    assert plan["num_runs"] == 8
    assert plan["num_packs"] >= 1
    assert plan["estimated_seconds"] > 0
    assert {"method": "lora", "rank": 4, "alpha": 64.0, "scale": 16.0} in plan["scales"]


WRONG = {
    "workload": "mlp",
    "workload_options": {"width": 1, "colour": "red"},
    "ranks": [0, "x"],
    "methods": ["lore"],
    "alphas": [-1],
    "steps": 10,
    "eval_every": 50,
    "colour": "red",
}
PROBLEMS = {
    "workload_options.width",
    "workload_options.colour",
    "ranks.0",
    "ranks.1",
    "methods",
    "alphas.0",
    "eval_every",
    "colour",
}


def test_every_invalid_field_is_reported_at_once(http: Any) -> None:
    refused = http.post("/api/sweeps", json=WRONG)
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"
    assert set(fields(refused)) == PROBLEMS
    assert refused.json()["status"] == 422
    plan = http.post("/api/sweeps/plan", json=WRONG)
    assert plan.status_code == 200
    assert not plan.json()["valid"]
    assert set(fields(plan)) == PROBLEMS


def test_messages_quote_what_was_given_but_not_all_of_it(http: Any) -> None:
    answer = http.post("/api/sweeps", json={"workload": "mlp", "steps": "x" * 5000})
    (error,) = answer.json()["errors"]
    assert error["message"].startswith("got 'xxx")
    assert len(error["message"]) < 200


@pytest.mark.parametrize("body", ["{", "[]", "null", '"x"', "NaN", '{"workload": "mlp", "lrs": [NaN]}'])
def test_a_body_that_is_no_request_is_a_problem(body: str, http: Any) -> None:
    for path in ("/api/sweeps", "/api/sweeps/plan"):
        answer = http.post(path, content=body, headers={"Content-Type": "application/json"})
        refused = answer.status_code == 422 or (answer.status_code == 200 and not answer.json()["valid"])
        assert refused, answer.text


def test_too_many_runs_are_refused_with_the_number(http: Any) -> None:
    body = {"workload": "mlp", "seeds": list(range(100)), "lrs": [k * 1e-5 for k in range(1, 11)]}
    answer = http.post("/api/sweeps", json=body)
    assert fields(answer) == ["sweep"]
    assert "63,000 runs" in answer.json()["errors"][0]["message"]


def test_an_idempotency_key_makes_a_post_repeatable(http: Any) -> None:
    headers = {"Idempotency-Key": "k1"}
    first = http.post("/api/sweeps", json=BODY, headers=headers)
    again = http.post("/api/sweeps", json=BODY, headers=headers)
    assert first.status_code == again.status_code == 201
    assert first.json()["id"] == again.json()["id"]
    other = http.post("/api/sweeps", json={**BODY, "steps": 50}, headers=headers)
    assert other.status_code == 409
    assert "another body" in other.json()["detail"]
    assert len(http.get("/api/sweeps").json()["items"]) == 1
    assert http.post("/api/sweeps", json=BODY).json()["id"] != first.json()["id"]


def test_the_key_of_a_deleted_sweep_is_free_again(http: Any) -> None:
    headers = {"Idempotency-Key": "k1"}
    first = http.post("/api/sweeps", json=BODY, headers=headers).json()
    assert http.delete(f"/api/sweeps/{first['id']}").status_code == 204
    again = http.post("/api/sweeps", json=BODY, headers=headers)
    assert again.status_code == 201
    assert again.json()["id"] != first["id"]


def test_lists_are_read_page_by_page_newest_first(client: Client) -> None:
    made = [client.create_sweep({**BODY, "name": f"sweep {index}"}).id for index in range(5)]
    seen, cursor = [], None
    while True:
        page = client.sweeps(cursor, limit=2)
        seen += [sweep.id for sweep in page.items]
        client.create_sweep(BODY)  # what is added meanwhile does not shift the pages
        cursor = page.next
        if cursor is None:
            break
    assert [sweep_id for sweep_id in seen if sweep_id in made] == made[::-1]
    assert len(set(seen)) == len(seen)


def test_lists_are_filtered(http: Any, client: Client) -> None:
    first = client.create_sweep({**BODY, "name": "100 % sure", "tags": ["paper"]})
    second = client.create_sweep({**BODY, "workload": "digits"})
    client.sweep_action(second.id, "cancel")

    def found(**params: Any) -> list[str]:
        return [item["id"] for item in http.get("/api/sweeps", params=params).json()["items"]]

    assert found(state="queued") == [first.id]
    assert found(state=["cancelled", "failed"]) == found(state="cancelled,failed") == [second.id]
    assert found(workload="mlp") == found(tag="paper") == found(search="0 %") == [first.id]
    assert found(search="_") == []
    assert found(state="", tag="", search="", workload="", cursor="") == [second.id, first.id]
    assert http.get("/api/sweeps", params={"state": "asleep"}).status_code == 422


def test_name_notes_and_tags_can_be_changed(client: Client, http: Any) -> None:
    sweep = client.create_sweep(BODY)
    changed = client.patch_sweep(sweep.id, name="α over r", notes="see *notebook*", tags=["a"])
    assert (changed.name, changed.notes, changed.tags) == ("α over r", "see *notebook*", ["a"])
    assert client.patch_sweep(sweep.id, notes="").name == "α over r"
    refused = http.patch(f"/api/sweeps/{sweep.id}", json={"state": "finished"})
    assert fields(refused) == ["state"]


@pytest.mark.parametrize("verb", ["pause", "resume", "stop", "cancel", "retry"])
def test_verbs_answer_with_the_sweep_or_say_why_not(verb: str, http: Any) -> None:
    sweep_id = http.post("/api/sweeps", json=BODY).json()["id"]
    answer = http.post(f"/api/sweeps/{sweep_id}/{verb}")
    assert answer.status_code == (409 if verb in {"resume", "retry"} else 201)
    if answer.status_code == 409:
        assert sweep_id in answer.json()["detail"]
    else:
        assert answer.json()["id"] == sweep_id


def test_extend_adds_cells(http: Any) -> None:
    sweep_id = http.post("/api/sweeps", json=BODY).json()["id"]
    answer = http.post(f"/api/sweeps/{sweep_id}/extend", json={"ranks": [8]})
    assert answer.status_code == 201
    assert answer.json()["counts"]["total"] == 12


@pytest.mark.parametrize(
    "path",
    ["", "/cells", "/law", "/equivalence", "/collapse"],
)
def test_what_does_not_exist_is_not_found(path: str, http: Any) -> None:
    answer = http.get(f"/api/sweeps/zzz{path}")
    assert answer.status_code == 404
    assert answer.json()["detail"] == "there is no sweep 'zzz'"
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/api/nope", "/api/sweeps/x/y/z", "/api/", "/nope"])
def test_unknown_paths_are_problems_too(path: str, http: Any) -> None:
    answer = http.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_wrong_method_names_the_right_ones(http: Any) -> None:
    answer = http.put("/api/sweeps")
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_database_that_is_away_is_said_so(http: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise OperationalError("SELECT 1", {}, Exception("connection refused"))

    monkeypatch.setattr(sweeps, "read", away)
    answer = http.get("/api/sweeps/x")
    assert answer.status_code == 503
    assert answer.headers["retry-after"]


def test_a_defect_is_a_problem_without_its_inside(http: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the password is 1234")

    monkeypatch.setattr(sweeps, "read", broken)
    answer = http.get("/api/sweeps/x")
    assert answer.status_code == 500
    assert "1234" not in answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_creating_rings_the_workers(settings: Any, http: Any) -> None:
    http.post("/api/sweeps", json=BODY)
    assert list((settings.home / "queue").rglob("*.msg"))


def test_analysis_of_an_unfinished_sweep_is_200_with_reasons(client: Client) -> None:
    sweep = client.create_sweep(SweepRequest.model_validate(BODY))
    assert client.law(sweep.id).reasons
    assert client.law(sweep.id, target="lr", objective="best", at_step=5).reasons
    assert client.equivalence(sweep.id, margin=0.05).verdict == "not_enough_data"
    assert client.collapse(sweep.id).verdict == "not_enough_data"
