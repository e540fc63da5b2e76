"""examples/service-python, written from proto/README.md alone, against the real agent: the proof that the text suffices."""
import json, os, subprocess

import lab as lab_module
from lab import DOMAIN


def test_the_example_service_resets_a_password(build):
    path = os.path.join(lab_module.ROOT, "examples", "service-python", "service.py")
    assert len(open(path, encoding="utf-8").readlines()) <= 180
    lab = lab_module.Lab(build, "mock")
    service = None
    try:
        lab.start_directory()
        ca, pem, key = lab_module.certificate(lab.folder, "example")
        port, http_port = lab_module.free_port(), lab_module.free_port()
        service = subprocess.Popen([path, "--certificate", pem, "--key", key, "--port", str(port), "--http-port", str(http_port),
                                    "--user", f"userPrincipalName:alice@{DOMAIN}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        service.stdin.write("Gr33n-Field-Harbour\n")
        service.stdin.flush()
        ticket = service.stdout.readline().split()[1]
        lab.agent = lab_module.Agent(build, lab.folder + "/agent", lab.directory, f"wss://localhost:{port}/v1/agent", ca)
        lab.agent.start()
        lab.agent.enroll(f"https://localhost:{http_port}", ticket)
        result = json.loads(service.communicate(timeout=60)[0])
        assert service.returncode == 0
        assert (result["status"], result["code"]) == ("applied", "ok")
        assert lab.directory.opens("alice", "Gr33n-Field-Harbour")
    finally:
        if service and service.poll() is None:
            service.kill()
        lab.close()
