"""New keys of an agent at the service (proto/README.md 5.3): what it takes, what it refuses, and who comes by a key that was replaced. The agent's side is played here."""
import asyncio, json, time, uuid

import pytest

from test_service import Agent, Service, new_key, peek, public, run, sign


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    service = Service(tmp_path_factory.mktemp("service"))
    yield service
    service.stop()


@pytest.fixture
def agent(service):
    agent = Agent(service)
    agent.next_signing, agent.next_decryption = new_key(), new_key()
    yield agent
    service.http("DELETE", f"/v1/agents/{agent.id}")


def rekey(agent, by=None, proof_by=None, proof=None, **others):
    bound = {"iss": agent.id, "aud": agent.service.issuer, "iat": int(time.time()), "session": agent.session}
    claims = {**bound, "signing_key": public(agent.next_signing), "decryption_key": public(agent.next_decryption, "ECDH-ES", "enc"),
              "proof": sign(proof_by or agent.next_signing, "wb-rekey-proof+jwt", {**bound, **(proof or {})}), **others}
    return sign(by or agent.signing, "wb-rekey+jwt", {name: value for name, value in claims.items() if value is not None})


async def confirmed(agent, signing, decryption):
    claims = (await agent.receive("wb-rekeyed+jwt"))[1]
    assert (claims["iss"], claims["aud"], claims["session"]) == (agent.service.issuer, agent.id, agent.session)
    assert (claims["signing_key"], claims["decryption_key"]) == (signing.thumbprint(), decryption.thumbprint())


def at_service(agent):
    return next(a for a in json.loads(agent.service.command("agents", "--json")) if a["agent_id"] == agent.id)


def use_next(agent):
    agent.former = agent.signing
    agent.signing, agent.decryption = agent.next_signing, agent.next_decryption


def test_taken_and_the_same_again(service, agent):
    async def main():
        await agent.connect()
        former = agent.signing, agent.decryption
        message = rekey(agent)
        for _ in range(3):
            await agent.ws.send(message)
        # Two of the three may be answered by one.
        await confirmed(agent, agent.next_signing, agent.next_decryption)
        row = at_service(agent)
        assert (row["signing_key"], row["decryption_key"]) == (agent.next_signing.thumbprint(), agent.next_decryption.thumbprint())
        assert [(f["signing_key"], f["decryption_key"]) for f in row["former_keys"]] == [tuple(key.thumbprint() for key in former)]
        # In flight by the former key on this channel, until the first by the new one.
        question = asyncio.create_task(asyncio.to_thread(service.ask, operation_id=str(uuid.uuid4())))
        text = await asyncio.wait_for(agent.ws.recv(), 5)
        while peek(text)[0]["typ"] == "wb-rekeyed+jwt":
            text = await asyncio.wait_for(agent.ws.recv(), 5)
        claims = peek(text)[1]
        old = agent.signing
        use_next(agent)
        assert agent.decrypt(claims)["operation_id"] == claims["operation_id"]  # to the new one at once
        await agent.ws.send(agent.result(claims, key=old))
        assert (await agent.receive("wb-ack+jwt"))[1]["request_ids"] == [claims["jti"]]
        assert (await question)[1]["code"] == "ok"
        await agent.ws.send(agent.result(claims))
        assert (await agent.receive("wb-ack+jwt"))[1]["request_ids"] == [claims["jti"]]
        await agent.ws.send(agent.result(claims, key=old))
        await agent.closed(1008)
        await agent.connect()
        await agent.close()
    run(main())


def test_one_of_them_alone(service, agent):
    async def main():
        await agent.connect()
        await agent.ws.send(sign(agent.signing, "wb-rekey+jwt", {
            "iss": agent.id, "aud": service.issuer, "iat": int(time.time()), "session": agent.session, "decryption_key": public(agent.next_decryption, "ECDH-ES", "enc")}))
        await confirmed(agent, agent.signing, agent.next_decryption)
        agent.decryption = agent.next_decryption
        await agent.ws.send(rekey(agent, decryption_key=None))
        await confirmed(agent, agent.next_signing, agent.decryption)
        agent.signing = agent.next_signing
        await agent.close()
        await agent.connect()
        await agent.close()
    run(main())


@pytest.mark.parametrize("fault", ["proof by the present key", "proof by a stranger", "proof of another channel", "another channel", "all of another channel", "another agent", "another issuer", "a minute old", "both alike",
                                   "no keys", "another agent's key", "by the next key", "a former key"])
def test_refused(service, agent, fault):
    """1008, nothing has changed, and the agent comes back by the keys that it has."""
    other = Agent(service)
    wrong = {
        "proof by the present key": lambda: rekey(agent, proof_by=agent.signing), "proof by a stranger": lambda: rekey(agent, proof_by=new_key()),
        "proof of another channel": lambda: rekey(agent, proof={"session": str(uuid.uuid4())}), "another channel": lambda: rekey(agent, session=str(uuid.uuid4())),
        "all of another channel": lambda: rekey(agent, session=other.id, proof={"session": other.id}), "another agent": lambda: rekey(agent, iss=other.id), "another issuer": lambda: rekey(agent, aud="https://other.example"), "a minute old": lambda: rekey(agent, iat=int(time.time()) - 62),
        "both alike": lambda: rekey(agent, decryption_key=public(agent.next_signing, "ECDH-ES", "enc")),
        "no keys": lambda: rekey(agent, signing_key=None, decryption_key=None), "by the next key": lambda: rekey(agent, by=agent.next_signing),
    }

    async def main():
        await agent.connect()
        if fault in ("another agent's key", "a former key"):
            if fault == "a former key":
                await other.connect()
                other.next_signing, other.next_decryption, former = new_key(), new_key(), other.signing
                await other.ws.send(rekey(other))
                await confirmed(other, other.next_signing, other.next_decryption)
                await other.close()
            agent.next_signing = former if fault == "a former key" else other.signing
            wrong[fault] = lambda: rekey(agent)
        before = at_service(agent)
        await agent.ws.send(wrong[fault]())
        await agent.closed(1008)
        after = at_service(agent)
        assert all(before[name] == after[name] for name in ("signing_key", "decryption_key", "former_keys"))
        await agent.connect()
        await agent.close()
    run(main())
    service.http("DELETE", f"/v1/agents/{other.id}")


async def replaced(agent):
    await agent.connect()
    await agent.ws.send(rekey(agent))
    await confirmed(agent, agent.next_signing, agent.next_decryption)


def test_the_former_key_before_and_after_the_new_one_was_seen(service, agent):
    async def main():
        await replaced(agent)
        former = agent.signing, agent.decryption
        # It does not know yet: turned away, and it comes by the next one.
        await agent.close()
        await agent.open()
        await agent.hello()
        await agent.closed(1008)
        use_next(agent)
        await agent.connect()
        # Now it is somebody else, wherever he has it from.
        thief = Agent(service, ticket=False)
        thief.id, thief.instance, thief.boot, thief.service_keys = agent.id, agent.instance, agent.boot, agent.service_keys
        thief.signing, thief.decryption = former
        # What he has recorded proves nothing: it has another channel's nonce.
        await thief.open()
        await thief.hello(nonce=agent.challenge["nonce"])
        await thief.closed(1008)
        assert not at_service(agent)["clone_seen_at"]
        await thief.open()
        await thief.hello()
        await thief.closed(4003)
        await agent.closed(4003)
        seen = time.time() + 5
        while not at_service(agent)["clone_seen_at"] or "agent.former_key" not in service.log_text():  # the log has a thread of its own
            assert time.time() < seen
        await agent.open()
        await agent.hello()
        await agent.closed(4003)
        service.command("release", agent.id)
        released = time.time() + 5
        while f"agent.released agent_id={agent.id}" not in service.log_text():
            assert time.time() < released
            await asyncio.sleep(0.02)
        await agent.connect()
        await agent.close()
    run(main())


def test_a_crowd_hides_no_thief(service, agent):
    """Strangers who name the agent, from more addresses than have lines: whoever has a former key is told of all the same."""
    async def main():
        await replaced(agent)
        former = agent.signing, agent.decryption
        use_next(agent)
        await agent.close()
        await agent.connect()
        thief = Agent(service, ticket=False)
        thief.id, thief.instance, thief.boot, thief.service_keys = agent.id, agent.instance, agent.boot, agent.service_keys
        for n in range(2, 72):
            await thief.open(local_addr=(f"127.0.0.{n}", 0))
            await thief.hello(key=new_key())
            await thief.closed(1008)
        thief.signing, thief.decryption = former
        await thief.open()
        await thief.hello()
        await thief.closed(4003)
        def lines(event):
            return [line for line in service.log_text().splitlines() if agent.id in line and event in line]
        until = time.monotonic() + 5  # lines are written behind what they tell
        while not lines("agent.clone"):
            assert time.monotonic() < until
            await asyncio.sleep(0.02)
        assert len(lines("agent.former_key")) == 1 and len(lines("agent.turned_away")) < 65
    run(main())


def test_not_without_end(service, agent):
    """Each leaves a row behind for good."""
    async def main():
        await agent.connect()
        for _ in range(16):
            await agent.ws.send(rekey(agent))
            await confirmed(agent, agent.next_signing, agent.next_decryption)
            use_next(agent)
            agent.next_signing, agent.next_decryption = new_key(), new_key()
        await agent.ws.send(rekey(agent))
        await agent.closed(1008)
        await agent.connect()
        await agent.close()
    run(main())
    assert len(at_service(agent)["former_keys"]) == 16


def twin_of(agent, signing, decryption):
    twin = Agent(agent.service, ticket=False)
    twin.id, twin.instance, twin.boot, twin.service_keys, twin.signing, twin.decryption = agent.id, agent.instance, agent.boot, agent.service_keys, signing, decryption
    return twin


@pytest.mark.parametrize("named, code", [("the next", 1008), ("nothing", 4003), ("another", 4003)])
def test_a_welcome_is_kept_from_the_agent(service, agent, named, code):
    """Whoever owns the channel has brought the hello by the next pair to the service, keeps the welcome and closes with 1008 himself: the agent greets by the former pair again, and is no clone of itself."""
    async def main():
        await replaced(agent)
        former = twin_of(agent, agent.signing, agent.decryption)
        await agent.close()
        use_next(agent)
        await agent.connect()
        await former.open()
        await former.hello(**({} if named == "nothing" else {"next_signing_key": (agent.signing if named == "the next" else new_key()).thumbprint()}))
        await former.closed(code)
        assert bool(at_service(agent)["clone_seen_at"]) == (code == 4003)
        if code == 1008:
            await agent.connect()
            await agent.close()
    run(main())


@pytest.mark.parametrize("by", ["the same pair", "the former pair"])
def test_a_hello_that_was_held_up_makes_no_clone(service, agent, by):
    """Whoever owns the channel keeps a hello until the agent has started anew. Who has a copy comes again."""
    async def main():
        if by == "the former pair":
            await replaced(agent)
        former = twin_of(agent, agent.signing, agent.decryption)
        if by == "the former pair":
            await agent.close()
            use_next(agent)
        await former.open()
        agent.boot += 1
        await agent.connect()
        await former.hello()
        await former.closed(1008)
        assert not at_service(agent)["clone_seen_at"]
        await former.open()
        await former.hello()
        await former.closed(4003)
        await agent.closed(4003)
    run(main())


def test_a_thief_who_replaces_it_and_says_nothing_more(service, agent):
    """The real agent is back with a lower boot than his, by the key that he has replaced: that is enough."""
    async def main():
        agent.boot = 5
        await replaced(agent)
        agent.boot = 4
        await agent.open()
        await agent.hello()
        await agent.closed(4003)
    run(main())


def test_revoked_meanwhile(service, agent):
    async def main():
        await agent.connect()
        service.http("DELETE", f"/v1/agents/{agent.id}")
        await agent.closed(4001)
        for key in agent.signing, agent.next_signing:
            await agent.open()
            await agent.hello(key=key)
            await agent.closed(4001)
    run(main())
    assert at_service(agent)["signing_key"] == agent.signing.thumbprint()


def test_remembered_over_a_restart(tmp_path):
    service = Service(tmp_path)
    agent = Agent(service)
    agent.next_signing, agent.next_decryption = new_key(), new_key()

    async def main():
        await replaced(agent)
        former = agent.signing
        use_next(agent)
        service.stop()
        service.start()
        await agent.connect()
        await agent.close()
        await agent.open()
        await agent.hello(key=former)
        await agent.closed(4003)
    try:
        run(main())
    finally:
        service.stop()
