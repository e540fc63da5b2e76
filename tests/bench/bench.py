#!/usr/bin/python3
"""bench.py [BUILD] [--directory mock|samba] [--requests N]: what a reset costs through the whole agent, beside raw libldap doing the same modifies to the same directory in
the same run. Prints figures and ratios; asserts nothing. Build without sanitizers first: meson setup build --buildtype=release && ninja -C build."""
import argparse, json, os, re, statistics, subprocess, sys, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import lab as lab_module
from lab import DOMAIN, Late, wait_for
from scripted_service import ScriptedService, example

USERS = {"mock": 200, "samba": 60}  # what the fixtures have
TICKS = os.sysconf("SC_CLK_TCK")


def cpu(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(pid):
    """Resident and proportional set size in MB: what is shared with other processes counts once."""
    text = open(f"/proc/{pid}/smaps_rollup").read()
    return tuple(int(re.search(rf"^{k}:\s+(\d+)", text, re.M).group(1)) / 1024 for k in ("Rss", "Pss"))


def crypto_us():
    """One ES256 verification, one ECDH, one signature, by `openssl speed`."""
    text = subprocess.run(["openssl", "speed", "-seconds", "1", "ecdsap256", "ecdhp256"], capture_output=True, text=True, check=True).stdout
    sign, verify = re.search(r"ecdsa \(nistp256\)\s+\S+\s+\S+\s+([\d.]+)\s+([\d.]+)", text).groups()
    ecdh = re.search(r"ecdh \(nistp256\)\s+\S+\s+([\d.]+)", text).group(1)
    return 1e6 / float(sign) + 1e6 / float(verify) + 1e6 / float(ecdh)


class BenchService:
    """bench-service in the place of the service that the agent was enrolled with."""

    def __init__(self, build, folder, service, pem, key, users):
        self.users = users
        self.argv = [os.path.join(build, "tests/bench/bench-service"), str(service.args.port), pem, key, service.issuer, service.agent_id, DOMAIN]
        signing, decryption = service.agents[service.agent_id]
        for name, text in (("key-set.jws", service.key_set), ("signing.jwk", service.signing.export_private()),
                           ("agent-signing.jwk", json.dumps(example.public(signing))), ("agent-decryption.jwk", json.dumps(example.public(decryption, "ECDH-ES", "enc")))):
            path = os.path.join(folder, name)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
                f.write(text)
            self.argv.append(path)
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def wait_ready(self):
        if json.loads(self.process.stdout.readline()) != {"ready": True}:
            raise Late("bench-service")

    def run(self, op, total, in_flight):
        self.process.stdin.write(f"{op} {total} {in_flight} 0 {self.users}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def stop(self):
        self.process.kill()
        self.process.wait()


def raw(build, directory, password_file, total, in_flight, users):
    done = subprocess.run([os.path.join(build, "tests/bench/bench-ldap"), f"ldaps://{directory.host}:{directory.port}", directory.ca, directory.bind_dn, password_file,
                           directory.base, str(total), str(in_flight), str(users), "1" if directory.policy_hints else "0"], capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise Late(done.stderr)
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("build", nargs="?", default=os.path.join(lab_module.ROOT, "build"))
    parser.add_argument("--directory", choices=("mock", "samba"), default="mock")
    parser.add_argument("--requests", type=int)
    args = parser.parse_args()
    total = args.requests or (2000 if args.directory == "mock" else 200)  # below 20,000 in all: what the journal keeps for an hour
    lab = lab_module.Lab(args.build, args.directory)
    service = bench = None
    try:
        lab.start_directory()
        service = ScriptedService(lab.folder + "/scripted")
        limits = {"in_flight": 4096, "waiting_per_user": 64, "per_minute": 0, "per_user_hour": 0, "latch_per_hour": 0, "unlocks_per_minute": 0}
        agent = lab.agent = lab_module.Agent(lab.build, lab.folder + "/agent", lab.directory, service.endpoint, service.ca,
                                             settings={"limits": limits, "log": {"level": "info"}, "diagnostics": {"loop_probe": "1s"}},
                                             directory_settings={"queue": 4096, "timeouts": {"locate": "30s", "write": "60s"}})
        agent.start()
        agent.enroll(service.issuer, service.ticket)
        wait_for("the greeting", lambda: service.ws)
        pem, key = (os.path.join(lab.folder, "scripted", n) for n in ("scripted.pem", "scripted.key"))
        service.close()
        bench = BenchService(lab.build, lab.folder, service, pem, key, USERS[args.directory])
        bench.wait_ready()
        report(lab, bench, agent, total)
    finally:
        if bench:
            bench.stop()
        lab.close()


def report(lab, bench, agent, total):
    password_file = os.path.join(agent.folder, "bind-password")
    print(f"{lab.directory.name}, {total} resets a row, {bench.users} users, two cores shared by directory, agent and load\n")
    starts(bench, agent)
    pids = {"writebackd": agent.writebackd.pid, "writebackd-channel": agent.channel.pid}
    flight(lab, bench, pids)
    print("in flight | raw libldap /s  p50 ms | agent /s  p50 ms  p99 ms | agent:raw | agent CPU µs a reset")
    crypto, per_reset = crypto_us(), None
    for in_flight in (1, 16, 64):
        count = total if in_flight > 1 else total // 4
        rows = []
        for _ in range(3):
            base = raw(lab.build, lab.directory, password_file, count, in_flight, bench.users)
            before = {name: cpu(pid) for name, pid in pids.items()}
            ours = bench.run("reset", count, in_flight)
            used = {name: (cpu(pid) - before[name]) / count * 1e6 for name, pid in pids.items()}
            if ours["applied"] != count or base["applied"] != count:
                print("  not all applied:", ours, base)
            rows.append((base, ours, used))
        median = lambda f: statistics.median(f(r) for r in rows)
        raw_s, our_s = median(lambda r: r[0]["per_second"]), median(lambda r: r[1]["per_second"])
        per_reset = median(lambda r: sum(r[2].values()))
        print(f"{in_flight:9} | {raw_s:14.0f}  {median(lambda r: r[0]['p50_us']) / 1000:6.2f} | {our_s:8.0f}  {median(lambda r: r[1]['p50_us']) / 1000:6.2f}  "
              f"{median(lambda r: r[1]['p99_us']) / 1000:6.2f} | {median(lambda r: r[1]['per_second'] / r[0]['per_second']):9.2f} | "
              f"{per_reset:6.0f} (writebackd {median(lambda r: r[2]['writebackd']):.0f}, channel {median(lambda r: r[2]['writebackd-channel']):.0f})")
        if in_flight == 1:
            print(f"          added at one in flight: {(median(lambda r: r[1]['p50_us']) - median(lambda r: r[0]['p50_us'])) / 1000:.2f} ms")
    print(f"\none verify, one ECDH, one sign by openssl speed: {crypto:.0f} µs; agent CPU at 64 in flight is {per_reset / crypto:.2f} times that")
    print(f"\nmemory after all of this: {sum(memory(pid)[1] for pid in pids.values()):.1f} MB proportional (an hour's outcomes are kept)")


def flight(lab, bench, pids):
    """Of an agent that has just been started."""
    bench.run("reset", 200, 16)  # warm
    idle = {name: memory(pid) for name, pid in pids.items()}
    print("memory, MB resident (proportional)   idle          1,000 in flight")
    if lab.kind == "mock":
        lab.directory.control("fault add on=modify delay=1500 count=1000")
    bench.process.stdin.write(f"reset 1000 1000 0 {bench.users}\n")
    bench.process.stdin.flush()
    peak = dict(idle)
    end = time.monotonic() + 1.4
    while time.monotonic() < end:
        for name, pid in pids.items():
            peak[name] = max(peak[name], memory(pid))
        time.sleep(0.05)
    json.loads(bench.process.stdout.readline())
    for name in pids:
        print(f"  {name:32} {idle[name][0]:6.1f} ({idle[name][1]:.1f})  {peak[name][0]:6.1f} ({peak[name][1]:.1f})")
    print(f"  {'together':32} {sum(m[0] for m in idle.values()):6.1f} ({sum(m[1] for m in idle.values()):.1f})  "
          f"{sum(m[0] for m in peak.values()):6.1f} ({sum(m[1] for m in peak.values()):.1f})\n")


def starts(bench, agent):
    def milliseconds(action):
        began = time.monotonic()
        action()
        bench.wait_ready()
        return (time.monotonic() - began) * 1000

    def start_agent():
        agent.start_writebackd()
        agent.start_channel()

    def restart_service():
        bench.stop()
        bench.start()

    ready, back = [], []
    for _ in range(9):
        agent.close()
        ready.append(milliseconds(start_agent))
        # The first loss of a channel: a service that comes and goes is tried less and less often.
        back.append(milliseconds(restart_service))
    print(f"ready (greeted by the service) after the agent's start: {statistics.median(ready):.0f} ms")
    print(f"back after a service that is restarted at once was killed: {statistics.median(back):.0f} ms, {min(back):.0f} to {max(back):.0f} (its own start included)\n")


if __name__ == "__main__":
    main()
