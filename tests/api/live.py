"""Asks a live server whatever its description allows, and what it does not, by schemathesis.

A real attestd on a temporary folder, with a simulated Apple and Macs that enrol, so that some of the names that
are asked for exist. Nothing may be answered with 5xx, nor with anything that the description does not say.
Everything it starts ends with it, and nothing is left behind.

usage: live.py ATTESTD ATTESTD_SIM PYTHON (the interpreter that has schemathesis)
"""

import base64
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

CHECKS = ",".join(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    ]
)
# Python 3.11 counts the depth of a syntax tree for all threads together (CPython issue 106905), and Hypothesis
# reads source while another thread writes the report: threads take turns only where they wait.
BEGIN = "import sys; sys.setswitchinterval(60); from schemathesis.cli import schemathesis; schemathesis()"
# Polls of one receiver that may wait (http::shared_signals).
POLLS = 4
# Ends when the reader goes: a request for it never comes back. Journeys read it (follow_events).
ENDLESS = ["/internal/v1/events"]


POLICY = "profiles/policies/strict.toml"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(what, found, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = found()
        if value:
            return value
        time.sleep(0.1)
    raise SystemExit(f"live.py: {what} did not come within {seconds} s")


def ask(method, url, body=None, **headers):
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read()
    except OSError:
        return 0, b""


class Live:
    """A server, its Macs and its Apple."""

    def __init__(self, home, attestd, sim):
        self.home, self.attestd, self.sim = home, attestd, sim
        self.world, self.server = os.path.join(home, "world"), os.path.join(home, "server")
        self.config = os.path.join(self.server, "attestd.toml")
        self.running = []
        self.stopped = False
        self.ports = [free_port() for _ in range(3)]
        self.public, self.internal = (f"http://127.0.0.1:{port}" for port in self.ports[:2])

    def start(self, name, *command):
        log = open(os.path.join(self.home, f"{name}.log"), "wb")
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.running.append(process)
        return process

    def wait_for_tokens(self, stream):
        """Takes every place in which this receiver may wait: each further poll is answered at once, as RFC 8936
        allows, and nobody waits for tokens that do not come."""
        def wait():
            while not self.stopped:
                authorization = f"Bearer {self.signals}"
                url = f"{self.internal}/ssf/poll/{stream}"
                if ask("POST", url, {"maxEvents": 1}, Authorization=authorization)[0] != 200:
                    time.sleep(0.5)

        for _ in range(POLLS):
            threading.Thread(target=wait, daemon=True).start()

    def stop(self):
        self.stopped = True
        for process in reversed(self.running):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def command(self, *arguments):
        done = subprocess.run(
            [self.attestd, *arguments, "--insecure-http"], capture_output=True, text=True
        )
        if done.returncode != 0:
            raise SystemExit(f"live.py: attestd {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def configured(self, *arguments):
        return json.loads(self.command(*arguments, "--json", "--config", self.config))

    def begin(self):
        apns = str(self.ports[2])
        first = self.start("world", self.sim, "world", "--dir", self.world, "--apns-port", apns)
        files = ["apns-root.pem", "attestation-root.pem", "push-cert.pem", "push-key.pem"]
        files = [os.path.join(self.world, name) for name in files]
        until("the simulated world", lambda: all(map(os.path.exists, files)))
        # The Macs bring it again, in their own process.
        first.send_signal(signal.SIGTERM)
        first.wait()
        self.command("init", self.server, "--base-url", self.public)
        key = lambda name: os.path.join(self.server, name)
        for name in ["release.key", "micromdm.key"]:
            with open(os.open(key(name), os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
                file.write(os.urandom(32).hex())
        public, internal = self.ports[:2]
        with open(self.config, "w") as config:
            config.write(
                f"""
base_url = "{self.public}"
[public]
listen = "127.0.0.1:{public}"
enroll_per_minute = 100000
scep_per_minute = 100000
acme_per_minute = 100000
feed_per_minute = 100000
log_per_minute = 100000
[internal]
listen = "127.0.0.1:{internal}"
[apns]
url = "https://localhost:{apns}"
root = "{files[0]}"
[attestation]
hold = "0s"
root = "{files[1]}"
[releases]
key_file = "release.key"
[shared_signals]
url = "{self.internal}"
[micromdm]
key_file = "micromdm.key"
webhook = "http://127.0.0.1:9/webhook"
allow_private = true
"""
            )
        self.configured("push-cert", "install", "--certificate", files[2], "--key", files[3])
        self.token = self.configured("token", "create", "--role", "operator", "--label", "live")["token"]
        self.receiver = self.configured("receiver", "add", "--audience", "https://r.example.org", "live")
        self.start(
            "server", self.attestd, "serve", "--insecure-http", "--config", self.config
        )
        until("the server", lambda: ask("GET", f"{self.internal}/readyz")[0] == 200)
        self.start(
            "macs", self.sim, "macs", "--with-world", self.world, "--apns-port", apns,
            "--server", self.public, "--count", "2", "--allow-http-loopback", "--poll", "5", "--json",
        )

    def inside(self, method, path, body=None):
        authorization = f"Bearer {self.token}"
        status, answer = ask(method, self.internal + path, body, Authorization=authorization)
        return json.loads(answer) if status in (200, 201, 202) and answer else None

    def state(self):
        """Names that exist, by the names of parameters."""
        def postures():
            found = self.inside("GET", "/internal/v1/postures")["postures"]
            return found if len(found) == 2 else None

        device = until("the Macs", postures)[0]["device_id"]
        mac = self.inside("GET", f"/internal/v1/devices/{device}")
        release = {"version": "1.2.3", "binary_hash": "ab" * 32}
        self.inside("POST", "/internal/v1/releases", release)
        ticket = self.inside("POST", "/internal/v1/tickets", {})
        key = subprocess.run(
            ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout"], capture_output=True
        ).stdout
        spki = subprocess.run(
            ["openssl", "pkey", "-pubout", "-outform", "DER"], input=key, capture_output=True
        ).stdout
        text = lambda octets: base64.b64encode(octets).decode()
        session = {
            "se_public_key": text(spki[-64:]),
            "encryption_public_key": text(os.urandom(32)),
            "claimed_serial_number": mac["serial_number"],
            "attestation_raw_b64": text(b"{}"),
            "signature_b64": "AA==",
        }
        bound = self.inside("PUT", "/internal/v1/bindings/ws-1", session)
        challenge = self.inside("POST", "/internal/v1/challenges", {"session": "ws-1"})
        verification = self.inside("POST", "/internal/v1/verifications", {"device_id": device})
        form = b"grant_type=client_credentials"
        credentials = f"{self.receiver['client_id']}:{self.receiver['client_secret']}".encode()
        granted = ask(
            "POST", f"{self.internal}/ssf/token", form,
            Authorization="Basic " + base64.b64encode(credentials).decode(),
        )[1]
        self.signals = json.loads(granted)["access_token"]
        delivery = {"method": "urn:ietf:rfc:8936"}
        made = ask(
            "POST", f"{self.internal}/ssf/stream", {"delivery": delivery},
            Authorization=f"Bearer {self.signals}",
        )[1]
        feed = json.loads(ask("GET", f"{self.public}/v1/providers/attestation")[1])
        keys = {
            "device_id": device,
            "session": bound and "ws-1",
            "challenge_id": challenge["challenge_id"],
            "verification_id": verification["verification_id"],
            "stream_id": json.loads(made)["stream_id"],
            "udid": mac["udid"],
            "progress_id": ticket["progress_id"],
            "binary_hash": release["binary_hash"],
            "provider_id": feed["providers"][0]["provider_id"] if feed["providers"] else None,
            "sha256": self.policy(),
        }
        return {name: value for name, value in keys.items() if value}

    def policy(self):
        """The hash of the policy that judges."""
        named = self.inside("GET", "/internal/v1/status")["policy_id"].split("/")[1]
        with open(POLICY, "rb") as file:
            found = hashlib.sha256(file.read()).hexdigest()
        return found if found.startswith(named) else None


def settings(live, names):
    """What schemathesis is told: who asks, and the names to ask by."""
    basic = lambda user, password: "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    with open(os.path.join(live.server, "micromdm.key")) as key:
        relay = basic("micromdm", key.read())
    client = basic(live.receiver["client_id"], live.receiver["client_secret"])
    who = [
        ("^/internal/", f"Bearer {live.token}"),
        ("^/ssf/(?!token)", f"Bearer {live.signals}"),
        ("^/ssf/token", client),
        ("^/micromdm/", relay),
    ]
    lines = [f"{name} = {json.dumps(value)}" for name, value in names.items()]
    lines = ["[parameters]", *(f'"path.{line}' .replace(" = ", '" = ', 1) for line in lines)]
    for paths, authorization in who:
        lines += [
            "[[operations]]",
            f"include-path-regex = {json.dumps(paths)}",
            f"headers = {{ Authorization = {json.dumps(authorization)} }}",
        ]
    for path in ENDLESS:
        lines += ["[[operations]]", f"include-path = {json.dumps(path)}", "enabled = false"]
    return "\n".join(lines) + "\n"


def run(live, python, listener, names, phases, examples):
    """One run; whether it found nothing."""
    url, path = {
        "public": (live.public, "/openapi.json"),
        "internal": (live.internal, "/internal/v1/openapi.json"),
    }[listener]
    config = os.path.join(live.home, "schemathesis.toml")
    with open(config, "w") as file:
        file.write(settings(live, names))
    print(f"-- {listener}, {'names that exist' if names else 'any names'}", flush=True)
    command = [
        python, "-c", BEGIN, "--config-file", config, "run", url + path,
        "--checks", CHECKS, "--phases", phases, "--max-examples", str(examples),
        "--generation-deterministic",
        "--request-timeout", "30", "--workers", "2", "--continue-on-failure",
        "--warnings", "off", "--no-color", "--output-sanitize", "false",
    ]
    return subprocess.run(command, cwd=live.home, stdin=subprocess.DEVNULL).returncode == 0


def main():
    attestd, sim, python = (os.path.abspath(path) for path in sys.argv[1:4])
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="attestd-live-") as home:
        live = Live(home, attestd, sim)
        try:
            live.begin()
            names = live.state()
            live.wait_for_tokens(names["stream_id"])
            print(f"-- a server with: {', '.join(sorted(names))}", flush=True)
            passed = [
                run(live, python, listener, known, phases, examples)
                for listener in ("public", "internal")
                for known, phases, examples in (
                    ({}, "examples,coverage,fuzzing", 15),
                    (names, "fuzzing", 25),
                )
            ]
            alive = ask("GET", f"{live.internal}/readyz")[0] == 200
        finally:
            live.stop()
        faults = [line for line in open(os.path.join(home, "server.log")) if "panicked" in line]
    print("".join(faults), end="")
    print(f"-- {sum(passed)} of {len(passed)} runs found nothing, in {time.monotonic() - began:.0f} s")
    if not (all(passed) and alive and not faults):
        raise SystemExit("live.py: what the description says and what the server does differ")


if __name__ == "__main__":
    main()
