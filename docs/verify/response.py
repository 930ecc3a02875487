#!/usr/bin/env python3
"""Checks a saved reply, or the public feed, without trusting who sent it: what verify.py, beside it, does for evidence.

    response.py feed FILE|URL [--trust TRUST.json] [--at 2026-09-20T12:00:00Z]
    response.py response --headers FILE --body FILE --feed FILE|URL [--evidence FILE|URL] [--trust TRUST.json] [--at T]

The rules are in docs/verify.md. An https URL must lead to a root of the system, or of --tls-root; plain http is for this machine.
"""
import argparse, json, re, ssl, sys, urllib.parse, urllib.request
from datetime import datetime, timezone
from pathlib import Path
from verify import MOST_BYTES, Bundle, b64, check, failed, judge, moment, need, point, read_json, sha256

MOST = {"headers": 64 << 10, "body": 64 << 20, "feed": 256 << 20, "evidence": MOST_BYTES, "trust": MOST_BYTES}
SPKI = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")  # P-256, before 04, X and Y
LEVELS = ("none", "self_signed", "hardware")

# The feed: what its members must be; those of the second table may be missing or null.
text, flag = (lambda value: isinstance(value, str)), (lambda value: isinstance(value, bool))
number = lambda value: type(value) is int and 0 <= value < 1 << 64
texts = lambda value: isinstance(value, list) and all(map(text, value))
octets = lambda value: text(value) and b64(value) is not None
chain = lambda value: isinstance(value, list) and all(map(octets, value))
one_of = lambda *words: lambda value: text(value) and value in words
when = lambda value: text(value) and datetime.fromisoformat(value).tzinfo is not None
when_or_seconds = lambda value: type(value) is int or when(value)
times = lambda value, *names: all(value.get(name) is None or when_or_seconds(value[name]) for name in names)
state = lambda value: text(value["state"]) and times(value, "verified_at", "expires_at")
verification = lambda value: state(value["app_attest"]) and state(value["legacy"]) and times(value, "observed_at")

TOP = dict.fromkeys("apple_root_ca_url apple_enterprise_root_ca verification_instructions".split(), text)
TOP_OPTIONAL = {"anchor": one_of("apple", "custom"), "disclosure": one_of("full", "redacted"), "policy_id": text}
ENTRY = {**dict.fromkeys("provider_id status chip_name hardware_model se_public_key".split(), text), "trust_level": one_of(*LEVELS),
         **dict.fromkeys("secure_enclave sip_enabled secure_boot_enabled mdm_verified mda_verified acme_verified".split(), flag)}
ENTRY_OPTIONAL = {
    **dict.fromkeys("serial_number system_volume_hash mda_serial mda_udid mda_os_version mda_sepos_version nonce_scheme "
                    "evidence_url signature_b64".split(), text),
    **dict.fromkeys("authenticated_root_enabled app_attest_authorized residence_proved".split(), flag),
    **dict.fromkeys("usable_until posture_observed_at mda_leaf_not_before".split(), when),
    "memory_gb": number, "gpu_cores": number, "models": texts, "reasons": texts, "mda_cert_chain_b64": chain,
    "attestation_raw_b64": octets, "authorization_expires_at": when_or_seconds, "verification": verification,
    "se_key_bound": one_of("none", "pending", "stale", "mismatch", "bound"),
    "posture_verdict": one_of("affirming", "warning", "contraindicated", "unknown")}

def fold(name):
    """As readers see it that do not mind the case of letters."""
    return "".join({"\u017f": "s", "\u212a": "k"}.get(c, c.lower() if c.isascii() else c) for c in name)
def well_formed(members, must, may, known):
    folded = {fold(name): name for name in known}
    for name in members:
        need(folded.get(fold(name), name) == name, f"{name} is another spelling of a known name")
    for name, form in must.items():
        need(form(members[name]), f"{name} is not of its form")
    for name, form in may.items():
        need(members.get(name) is None or form(members[name]), f"{name} is not of its form")
def read_feed(data):
    """The providers of a feed."""
    need(len(data) <= MOST["feed"], "larger than any feed")
    feed = read_json(data)
    well_formed(feed, TOP, TOP_OPTIONAL, ["providers", *TOP, *TOP_OPTIONAL])
    providers = [] if feed["providers"] is None else feed["providers"]
    need(isinstance(providers, list), "providers is no list")
    for entry in providers:
        need(isinstance(entry, dict), "a provider that is no object")
        well_formed(entry, ENTRY, ENTRY_OPTIONAL, [*ENTRY, *ENTRY_OPTIONAL])
    names = [entry["provider_id"] for entry in providers]
    need(len(set(names)) == len(names), "a provider stands twice")
    return providers

class Entry:
    """A provider of the feed. As in a bundle: a claim is proved unless it raises, or returns another word."""
    def __init__(self, entry, trust, at):
        self.entry, self.bundle = entry, Bundle.__new__(Bundle)
        self.bundle.trust, self.bundle.at, self.bundle.leaf, self.bundle.anchor = trust, at, None, None
        self.bundle.blob = None if entry.get("attestation_raw_b64") is not None else {}

    def listed(self):
        point(b64(self.entry["se_public_key"]))
        need(self.entry.get("residence_proved") is not True, "nothing proves that the key lives in the Mac")
        return "asserted"

    def registration(self):
        raw, signature = (self.entry.get(name) for name in ("attestation_raw_b64", "signature_b64"))
        if raw is signature is None:
            return "absent"
        raw = b64(raw)
        said = self.bundle.blob = read_json(raw)
        key = point(b64(self.entry["se_public_key"]))
        need(point(b64(said["publicKey"])).public_numbers() == key.public_numbers(), "publicKey is another")
        check(key, b64(signature), raw)
        for name, other in (("chip_name", "chipName"), ("hardware_model", "hardwareModel"),
                            ("secure_enclave", "secureEnclaveAvailable")):
            need(self.entry[name] == said[other], f"{name} is not what the blob says")
        for name, other in (("sip_enabled", "sipEnabled"), ("secure_boot_enabled", "secureBootEnabled")):
            need(flag(said[other]) and said[other] >= self.entry[name], f"{name}, and the blob says that it is not")

    def apple(self):
        if self.entry.get("mda_cert_chain_b64") is None:
            return "asserted" if self.entry["mda_verified"] else "absent"
        self.bundle.apple({"chain_b64": self.entry["mda_cert_chain_b64"]})

    def apple_posture(self):
        if self.entry.get("mda_cert_chain_b64") is None:
            return "absent"
        self.bundle.apple_posture(None)
        for name, suffix in (("serial_number", "9.1"), ("mda_serial", "9.1"), ("mda_udid", "9.2")):
            if self.entry.get(name) is not None:
                need(self.entry[name].encode() == self.bundle.extension(suffix), f"{name} is not Apple's")

    def key_named(self):
        if self.entry.get("se_key_bound") != "bound":
            return "absent"
        if self.entry.get("mda_cert_chain_b64") is None:
            return "asserted"
        code = self.bundle.leaf and self.entry.get("nonce_scheme") == "legacy-se-sha256" and self.bundle.extension("11.1")
        need(self.bundle.leaf, "rests on apple")
        if code is False:
            return "asserted"
        need(code == sha256(self.entry["se_public_key"].encode()), "the freshness code is another")

def examine(entry, trust, at):
    """The claims that a feed makes of one provider, in the order of the table."""
    judged, claims = Entry(entry, trust, at), []
    for claim in ("listed", "registration", "apple", "apple_posture", "key_named"):
        try:
            word = getattr(judged, claim)() or "proved"
            by = "service" if word == "asserted" else "se_key" if claim == "registration" else judged.bundle.anchor
            claims += [{"claim": claim, "standing": word, "by": by}] if word != "absent" else []
        except Exception as error:
            claims.append(failed(claim, error))
    return claims

HEADERS = ("x-provider-attested x-provider-trust-level x-se-signature x-response-hash x-se-public-key x-provider-encrypted "
           "x-provider-id x-provider-chip x-provider-model x-provider-secure-enclave x-provider-mda-verified "
           "x-attestation-se-public-key x-provider-verification x-provider-authorization-method x-provider-serial "
           "x-attestation-device-serial").split()

class Reply:
    """The headers of the last reply in a file, trailers among them; those of other kinds are nobody's business."""
    def __init__(self, data):
        need(len(data) <= MOST["headers"], "more than any reply has")
        self.said = {}
        for line in data.decode("utf-8").split("\n"):
            line = line[:-1] if line.endswith("\r") else line
            if line.startswith("HTTP/"):
                self.said = {}
            elif line:
                name, colon, value = line.partition(":")
                need(colon and re.fullmatch(r"[!#-+\--~]+", name), "a line that is no header")
                if name.lower() in HEADERS:
                    value = value.strip(" \t")
                    need(re.fullmatch("[ -~]+", value), f"{name} is not of its form")
                    need(name.lower() not in self.said, f"{name} stands twice")
                    self.said[name.lower()] = value
        said, words = self.said, ("true", "false")
        for name in ("x-provider-attested", "x-provider-encrypted", "x-provider-secure-enclave", "x-provider-mda-verified"):
            need(said.get(name, "true") in words, f"{name} is neither true nor false")
        self.attested = said["x-provider-attested"] == "true"
        need(said.get("x-provider-trust-level", "none") in LEVELS, "a level that is none")
        need(said.get("x-provider-authorization-method", "none") in ("app_attest", "legacy", "dual", "none"), "no such method")
        keys = []
        if "x-se-public-key" in said:
            spki = b64(said["x-se-public-key"], 91)
            need(spki.startswith(SPKI), "x-se-public-key is no key of P-256")
            keys.append(point(spki[len(SPKI):]))
        if "x-attestation-se-public-key" in said:
            keys.append(point(b64(said["x-attestation-se-public-key"])))
        need(all(key.public_numbers() == keys[0].public_numbers() for key in keys), "two keys")
        self.key = keys[0] if keys else None
        need(said.get("x-provider-serial", "") in ("", said.get("x-attestation-device-serial", said.get("x-provider-serial"))),
             "two serial numbers")
        need(("x-se-signature" in said) == ("x-response-hash" in said), "half a proof")
        self.proof = proof(said["x-se-signature"], said["x-response-hash"]) if "x-se-signature" in said else None

    def signed(self, body):
        """By the key, over the body, or over the stream before its last event but one."""
        need(self.key, "the headers name no key")
        covered, proof = sealed(body) or (body, self.proof)
        need(proof, "no signature")
        need(self.proof in (None, proof), "the headers and the end of the stream differ")
        need(sha256(covered) == proof[1], "the hash is of another body")
        check(self.key, proof[0], covered)

    def provider(self, feed):
        """The provider of a feed whose key this is."""
        need(self.key, "the headers name no key")
        entry = next((entry for entry in feed if same(self.key, entry.get("se_public_key"))), None)
        need(entry, "no provider of the feed has this key")
        need(self.said.get("x-provider-id", entry["provider_id"]) == entry["provider_id"], "the headers name another provider")
        return entry

def proof(signature, digest):
    need(re.fullmatch("sha256:[0-9a-f]{64}", digest), "no hash of its form")
    return b64(signature), bytes.fromhex(digest[7:])
def same(key, named):
    try:
        return point(b64(named)).public_numbers() == key.public_numbers()
    except Exception:
        return False
def sealed(body):
    """What a stream that was signed covers, and the proof: that event holds nothing else, because nobody signs it."""
    try:
        need(body.endswith(b"\n\ndata: [DONE]\n\n"), "no such end")
        before, gap, event = (b"\n\n" + body[:-16]).rpartition(b"\n\n")
        need(event.startswith(b"data: "), "no such end")
        start, event = len(before) + len(gap) - 2, read_json(event[6:])
        need(event.keys() | {"choices"} == {"choices", "se_signature", "response_hash"}, "something else in it")
        need(event.get("choices", []) == [], "something else in it")
        return body[:start], proof(event["se_signature"], event["response_hash"])
    except Exception:
        return None

class Nowhere(urllib.request.HTTPRedirectHandler):  # nothing is followed that an answer points to
    def redirect_request(self, *_):
        return None
def get(source, most, tls_root):
    if not source.startswith(("http://", "https://")):
        return open(0 if source == "-" else source, "rb").read(most + 1)
    url = urllib.parse.urlsplit(source)
    need(url.scheme == "https" or url.hostname in ("127.0.0.1", "::1", "localhost"), "plain http is for this machine only")
    handlers = (Nowhere, urllib.request.ProxyHandler({}),
                urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=tls_root)))
    with urllib.request.build_opener(*handlers).open(source, timeout=60) as answer:
        data, status = answer.read(most + 1), answer.status
    return need(status == 200 and len(data) <= most, "no whole answer, or more than is read") or data
def get_json(source, kind, tls_root):
    data = get(source, MOST[kind], tls_root)
    need(data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["), "no JSON")
    return data
def get_trust(path):
    if path is None:
        return {}
    trust, beside = read_json(get(path, MOST_BYTES, None)), Path(path).parent
    trust |= {"jwks": read_json((beside / trust["jwks_file"]).read_bytes())} if "jwks_file" in trust else {}
    return trust | ({"root_pem": (beside / trust["mda_root_pem_file"]).read_bytes()} if "mda_root_pem_file" in trust else {})
def of(place, claims):
    return [{"in": place, **claim} for claim in claims]
def tried(claim, by, judgement):
    """One claim, and what the judgement of it brought."""
    try:
        return {"claim": claim, "standing": "proved", "by": by}, judgement()
    except Exception as error:
        return failed(claim, error), None

def response(args, trust):
    headers, body = (get(getattr(args, name), MOST[name], None) for name in ("headers", "body"))
    feed = get_json(args.feed, "feed", args.tls_root)
    form, reply = tried("form", None, lambda: need(len(body) <= MOST["body"], "larger than any reply") or Reply(headers))
    if reply is None:
        return of("reply", [form])
    claims = of("reply", [tried("signed", "se_key", lambda: reply.signed(body))[0]])
    claims += of("reply", [{"claim": "attested", "standing": "asserted", "by": "coordinator"}] if reply.attested else [])
    listed, entry = tried("listed", None, lambda: reply.provider(read_feed(feed)))
    if entry is None:
        return claims + of("feed", [listed])
    claims += of("feed", examine(entry, trust, args.at))
    base, is_feed, _ = args.feed.partition("/v1/providers/")
    is_named = re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", entry["provider_id"]) and entry.get("evidence_url")
    is_url = args.feed.startswith(("http://", "https://"))
    source = args.evidence or (f"{base}/v1/evidence/{entry['provider_id']}" if is_url and is_feed and is_named else None)
    if source:
        evidence = get_json(source, "evidence", args.tls_root)
        about = lambda: need(same(reply.key, read_json(evidence)["se_public_key"]), "the evidence is about another key")
        claims += of("evidence", [tried("same_key", "arithmetic", about)[0], *judge(evidence, trust, args.at)])
    return claims

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["feed", "response"])
    parser.add_argument("source", nargs="?", metavar="FILE|URL")
    for name in ("headers", "body", "feed", "evidence", "trust", "tls-root"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--at", type=moment, default=datetime.now(timezone.utc))
    args = parser.parse_args()
    if None in ((args.source,) if args.what == "feed" else (args.headers, args.body, args.feed)):
        parser.error("an input is missing")
    answer, end = {}, 1
    try:
        trust = get_trust(args.trust)
        if args.what == "response":
            answer["findings"] = claims = response(args, trust)
        else:
            data = get_json(args.source, "feed", args.tls_root)
            form, feed = tried("form", None, lambda: read_feed(data))
            listed = [(entry["provider_id"], examine(entry, trust, args.at)) for entry in feed or []]
            claims = [form] if feed is None else [{"of": name, **claim} for name, claims in listed for claim in claims]
            answer |= {"findings": claims} if feed is None else {
                "providers": [{"provider_id": name, "findings": found} for name, found in listed]}
    except Exception as error:
        answer["findings"], end = [failed("form", error)], 2
        claims = answer["findings"]
    about = lambda claim: "".join(f"{claim[name]}: " for name in ("of", "in", "claim") if name in claim)
    reasons = [about(claim) + claim["detail"] for claim in claims if "detail" in claim]
    answer = {"verdict": "refused" if reasons else "verified", "reasons": reasons, **answer}
    print(json.dumps({**answer, "at": args.at.isoformat().replace("+00:00", "Z")}, indent=2))
    sys.exit(end if reasons else 0)

if __name__ == "__main__":
    main()
