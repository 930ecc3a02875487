#!/usr/bin/env python3
"""Makes a feed, two replies and reply_cases.json, for what make.py made: run that first.

The second provider of the feed is the one that sealed.json is about, and that signed both replies. What a case expects was
decided from docs/verify.md, never copied from a verifier's answer.
"""
import json
import ssl

from make import AT, HERE, KEY, OTHER_KEY, OTHER_SE, SE, SERIAL, STRANGER, b64, drop, leaf, point, raw, sha256, sign

SPKI = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
OTHER_SERIAL = "FXMADE00002"
ID, OTHER_ID = "0a4a3d9e-6a55-8c11-9d20-0000000000b2", "0a4a3d9e-6a55-8c11-9d20-0000000000b1"
SEALED = json.loads((HERE / "sealed.json").read_text())
SUB, ROOT = SEALED["mda"]["chain_b64"][1], b64(ssl.PEM_cert_to_DER_cert((HERE / "made_root.pem").read_text()))


def put(pointers=(), **members):
    return {"set": {**dict(pointers), **{"/" + name: value for name, value in members.items()}}}


def blob(key, serial, signer, **change):
    """A blob as the provider signs it, and its signature."""
    said = {"chipName": "Apple M4 Max", "encryptionPublicKey": b64(sha256(b"K of " + key.encode())), "hardwareModel": "Mac16,5",
            "osVersion": "26.4.1", "publicKey": key, "secureBootEnabled": True, "secureEnclaveAvailable": True,
            "serialNumber": serial, "sipEnabled": True, "timestamp": "2026-09-20T11:50:00Z", **change}
    text = json.dumps(said, separators=(",", ":"), sort_keys=True).replace("/", "\\/").encode()
    return {"attestation_raw_b64": b64(text), "signature_b64": b64(sign(signer, text))}


def entry(provider_id, key, serial, chain, scheme, registered):
    return {
        "provider_id": provider_id, "serial_number": serial, "trust_level": "hardware", "status": "online",
        "chip_name": "Apple M4 Max", "hardware_model": "Mac16,5", "models": None, "secure_enclave": True, "sip_enabled": True,
        "secure_boot_enabled": True, "se_public_key": key, "mdm_verified": True, "acme_verified": True, "mda_verified": True,
        "mda_serial": serial, "mda_udid": "00006041-0000000000000002", "mda_os_version": "26.4.1", "nonce_scheme": scheme,
        "mda_leaf_not_before": "2026-09-19T03:00:00Z", "app_attest_authorized": False,
        "verification": {"app_attest": {"state": "unsupported"}, "legacy": {"state": "verified"}}, "se_key_bound": "bound",
        "residence_proved": False, "posture_verdict": "affirming", "reasons": [], "usable_until": "2026-09-21T11:59:47Z",
        "posture_observed_at": "2026-09-20T11:59:47Z", "evidence_url": f"https://mdm.darkbloom.example/v1/evidence/{provider_id}",
        "mda_cert_chain_b64": chain, **registered}


LEGACY = [b64(leaf(sha256(OTHER_KEY.encode()), {"9.1": OTHER_SERIAL.encode()})), SUB]
FEED = {"providers": [
    entry(OTHER_ID, OTHER_KEY, OTHER_SERIAL, LEGACY, "legacy-se-sha256", blob(OTHER_KEY, OTHER_SERIAL, OTHER_SE)),
    entry(ID, KEY, SERIAL, SEALED["mda"]["chain_b64"], "transcript-v1",
          {name: SEALED["registration"][name] for name in ("attestation_raw_b64", "signature_b64")})],
    "apple_root_ca_url": "https://www.apple.com/certificateauthority/", "apple_enterprise_root_ca": "none: made for tests",
    "verification_instructions": "See docs/verify.md.", "anchor": "custom", "disclosure": "full",
    "policy_id": "strict/1", "policy_waives": []}

BODY = b'{"id":"chatcmpl-1","choices":[{"index":0,"message":{"role":"assistant","content":"Hello."},"finish_reason":"stop"}]}'
CHUNKS = b"".join(b'data: {"id":"chatcmpl-2","choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % word for word in (b"Hel", b"lo."))


def proof(covered, signer=SE):
    return b64(sign(signer, covered)), "sha256:" + sha256(covered).hex()


SIGNATURE, HASH = proof(BODY)
STREAM_SIGNATURE, STREAM_HASH = proof(CHUNKS)
SEAL = f'data: {{"choices":[],"se_signature":"{STREAM_SIGNATURE}","response_hash":"{STREAM_HASH}"}}\n\n'
SPKI_TEXT = b64(SPKI + point(SE))
COMMON = (f"x-provider-attested: true\r\nx-provider-trust-level: hardware\r\nx-se-public-key: {SPKI_TEXT}\r\n"
          f"x-provider-id: {ID}\r\nx-provider-encrypted: true\r\nx-attestation-se-public-key: {KEY}\r\n")
HEADERS = (f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{COMMON}x-se-signature: {SIGNATURE}\r\n"
           f"x-response-hash: {HASH}\r\ndate: Sun, 20 Sep 2026 12:00:00 GMT\r\n\r\n")
STREAM_HEADERS = (f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{COMMON}trailer: x-se-signature, x-response-hash\r\n\r\n"
                  f"x-se-signature: {STREAM_SIGNATURE}\r\nx-response-hash: {STREAM_HASH}\r\n\r\n")
TRAILERS = f"x-se-signature: {STREAM_SIGNATURE}\r\nx-response-hash: {STREAM_HASH}\r\n\r\n"

CASES = []
ENTRY = {"listed": "asserted", "registration": "proved", "apple": "proved", "apple_posture": "proved", "key_named": "asserted"}


def case(what, title, claims, exit=None, at=AT, **edits):
    refused = exit == 2 or "failed" in claims.values()
    CASES.append({"name": f"{what}: {title}", "what": what, "at": at, **edits, "expect": {
        "verdict": "refused" if refused else "verified", "exit": exit if exit is not None else int(refused), "claims": claims}})


def feeds():
    """A feed by itself. A claim is named by the place of its provider."""
    def of(number, **change):
        return {f"{number}/{claim}": standing for claim, standing in {**ENTRY, **change}.items()}

    def changed(title, edits, **change):
        case("feed", title, of(1, **change), feed=edits)
    whole = {**of(0, key_named="proved"), **of(1)}
    case("feed", "as it is", whole, feed=[])
    case("feed", "of nobody", {"0/listed": "absent"}, feed=[put(providers=None)])
    case("feed", "of nobody, as a list", {"0/listed": "absent"}, feed=[put(providers=[])])
    case("feed", "one that fails does not harm the other", {**of(0, registration="failed", key_named="proved"), **of(1)},
         feed=[put({"/providers/0/chip_name": "Apple M3"})])
    # The whole of it.
    form = {"form": "failed"}
    for title, edits in {
        "a name twice": [raw('"disclosure"', '"policy_id":"x","disclosure"')],
        "a known name in other letters": [put(Providers=[])],
        "a provider's known name in other letters": [put({"/providers/1/SE_key_bound": "bound"})],
        "a name that a careless reader takes for another": [put({"/providers/1/\u017fe_key_bound": "bound"})],
        "a provider twice": [put({"/providers/1/provider_id": OTHER_ID})],
        "no list": [put(providers={})], "no providers": [drop("/providers")],
        "a provider that is none": [put({"/providers/1": 1})], "no instructions": [drop("/verification_instructions")],
        "another anchor": [put(anchor="moon")], "an unknown level": [put({"/providers/1/trust_level": "platinum"})],
        "an unknown grade": [put({"/providers/1/se_key_bound": "perhaps"})],
        "an unknown verdict": [put({"/providers/1/posture_verdict": "fine"})],
        "a flag in words": [put({"/providers/1/mda_verified": "true"})],
        "a flag as a number": [put({"/providers/1/sip_enabled": 1})],
        "a missing flag": [drop("/providers/1/secure_enclave")], "a missing key": [drop("/providers/1/se_public_key")],
        "a chain that is no list": [put({"/providers/1/mda_cert_chain_b64": "x"})],
        "a certificate that is no base64": [put({"/providers/1/mda_cert_chain_b64/0": "!"})],
        "a blob with bits left over": [put({"/providers/1/attestation_raw_b64": "QUF="})],
        "a time that is none": [put({"/providers/1/usable_until": "noon"})],
        "a model that is a number": [put({"/providers/1/models": [1]})],
        "a reason that is a number": [put({"/providers/1/reasons": [1]})],
        "less than no memory": [put({"/providers/1/memory_gb": -1})],
        "a state that is missing": [drop("/providers/1/verification/legacy/state")],
        "cut off": [raw('"disclosure"', "")],
    }.items():
        case("feed", f"form, {title}", form, feed=edits)
    case("feed", "form, no JSON", {}, exit=2, feed=[raw("{", "x")])
    changed("members that nobody knows", [put({"/providers/1/new": 1, "/new": {}})])
    changed("seconds in place of a time, as the historic coordinator wrote",
            [put({"/providers/1/verification/observed_at": 1789905587})])
    # One provider.
    at = "/providers/1/"
    changed("residence is proved by nothing", [put({at + "residence_proved": True})], listed="failed")
    for title, key in {"no base64": "!", "63 bytes": b64(point(SE)[:-1]), "off the curve": b64(bytes(63) + b"\1")}.items():
        changed(f"a key that is none, {title}", [put({at + "se_public_key": key})], listed="failed", registration="failed")
    changed("the key in its other spelling", [put({at + "se_public_key": b64(b"\4" + point(SE))})])
    changed("another key", [put({at + "se_public_key": b64(point(STRANGER))})], registration="failed")
    changed("a blob of another", [put({at + name: value for name, value in blob(OTHER_KEY, SERIAL, OTHER_SE).items()})], registration="failed")
    changed("a signature of another", [put({at + name: value for name, value in blob(KEY, SERIAL, STRANGER).items()})],
            registration="failed")
    changed("a blob without its signature", [drop(at + "signature_b64")], registration="failed")
    changed("a signature without its blob", [drop(at + "attestation_raw_b64")], registration="failed")
    for name in ("chip_name", "hardware_model"):
        changed(f"another {name}", [put({at + name: "other"})], registration="failed")
    changed("a Secure Enclave that the blob has", [put({at + "secure_enclave": False})], registration="failed")
    off = blob(KEY, SERIAL, SE, sipEnabled=False)
    changed("SIP that the blob says is off", [put({at + name: value for name, value in off.items()})], registration="failed")
    changed("SIP off in both", [put({at + name: value for name, value in off.items()}), put({at + "sip_enabled": False})])
    changed("SIP off, and on in the blob", [put({at + "sip_enabled": False})])
    boot = blob(KEY, SERIAL, SE, secureBootEnabled=False)
    changed("Secure Boot that the blob says is off", [put({at + name: value for name, value in boot.items()})], registration="failed")
    changed("a chain that is cut", [drop(at + "mda_cert_chain_b64/1")], apple="failed", apple_posture="failed", key_named="failed")
    changed("a chain of another Mac", [put({at + "mda_cert_chain_b64": LEGACY})], apple_posture="failed")
    changed("a chain with its root", [put({at + "mda_cert_chain_b64": [*SEALED["mda"]["chain_b64"], ROOT]})])
    changed("an empty chain", [put({at + "mda_cert_chain_b64": []})], apple="failed", apple_posture="failed", key_named="failed")
    reduced = b64(leaf(sha256(b"x"), {"13.2": b"Reduced Security"}))
    changed("Reduced Security by Apple's word", [put({at + "mda_cert_chain_b64/0": reduced})], apple_posture="failed")
    for name in ("serial_number", "mda_serial", "mda_udid"):
        changed(f"another {name}", [put({at + name: "OTHER"})], apple_posture="failed")
        changed(f"no {name}", [drop(at + name)])
    nobodys = b64(leaf(sha256(b"x"), {"9.2": None}))
    changed("a UDID that Apple does not state", [put({at + "mda_cert_chain_b64/0": nobodys})], apple_posture="failed")
    other = blob(KEY, OTHER_SERIAL, SE)
    changed("a blob with another serial number", [put({at + name: value for name, value in other.items()})], apple_posture="failed")
    case("feed", "a chain that is over", of(1, apple="failed", apple_posture="failed", key_named="failed"), at="2027-09-20T12:00:30Z")
    case("feed", "no root is trusted", of(1, apple="failed", apple_posture="failed", key_named="failed"),
         trust=[drop("/mda_root_sha256", "/mda_root_pem_file")])
    redacted = drop(*(at + name for name in ("mda_cert_chain_b64", "attestation_raw_b64", "signature_b64", "serial_number",
                                             "mda_serial", "mda_udid")))
    changed("redacted", [redacted], registration="absent", apple="asserted", apple_posture="absent")
    changed("redacted, and no chain verified", [redacted, put({at + "mda_verified": False})], registration="absent",
            apple="absent", apple_posture="absent")
    changed("the key is not bound", [put({at + "se_key_bound": "pending"})], key_named="absent")
    changed("nothing is said of the key", [drop(at + "se_key_bound")], key_named="absent")
    changed("a hash of the key that is none", [put({at + "nonce_scheme": "legacy-se-sha256"})], key_named="failed")
    case("feed", "the hash is of the text", {**of(0, registration="proved", key_named="failed")},
         feed=[put({"/providers/0/se_public_key": b64(b"\4" + point(OTHER_SE))})])


def replies():
    """Replies with their headers."""
    signed = {"reply/signed": "proved", "reply/attested": "asserted"}
    listed = {f"feed/{claim}": standing for claim, standing in ENTRY.items()}
    proved = {f"evidence/{claim}": "proved" for claim in (
        "same_key", "subject", "registration", "challenge", "status", "apple", "key_named", "apple_posture", "ear", "sealed",
        "policy", "log")} | {"evidence/security_info": "asserted"}
    whole = {**signed, **listed, **proved}

    def changed(title, change=None, without=None, **edits):
        claims = {**signed, **(listed if without is None else {"feed/registration": "absent"}), **(change or {})}
        case("response", title, claims, **edits)
    case("response", "down to the root", whole, evidence=[])
    case("response", "streamed, with trailers", whole, reply="stream", evidence=[])
    changed("without evidence")
    changed("streamed, without trailers", reply="stream", headers=[raw(TRAILERS)])
    changed("of nobody who was attested", {"reply/attested": "absent"}, headers=[raw("attested: true", "attested: false")])
    changed("no level", headers=[raw("x-provider-trust-level: hardware\r\n")])
    changed("the level of former coordinators", headers=[raw("level: hardware", "level: none")])
    changed("lines that end otherwise", headers=[raw("\r\n", "\n")])
    changed("names in capitals", headers=[raw("x-se-signature", "X-SE-Signature")])
    changed("after another reply", headers=[raw("HTTP/1.1 200 OK", "HTTP/1.1 100 Continue\r\nx-response-hash: none\r\n\r\nHTTP/2 200")])
    changed("other headers twice", headers=[raw("date: ", "set-cookie: a\r\nset-cookie: a\r\ndate: ")])
    changed("one name of the key", headers=[raw(f"x-attestation-se-public-key: {KEY}\r\n")])
    changed("the other name of the key", headers=[raw(f"x-se-public-key: {SPKI_TEXT}\r\n")])
    changed("nobody's id", headers=[raw(f"x-provider-id: {ID}\r\n")])
    # What is no reply's headers.
    for title, edit in {
        "not attested, and not not": raw("x-provider-attested: true\r\n"), "attested in capitals": raw("attested: true", "attested: True"),
        "an unknown level": raw(": hardware", ": platinum"), "a header twice": raw("date: ", f"x-response-hash: {HASH}\r\ndate: "),
        "a header twice, in other letters": raw("date: ", "X-Provider-Attested: true\r\ndate: "),
        "a hash in capitals": raw(HASH, HASH[:7] + HASH[7:].upper()), "a hash of another kind": raw("sha256:", "sha-256:"),
        "half a hash": raw(HASH, HASH[:-2]), "a signature that is no base64": raw(SIGNATURE, "!"),
        "a signature without a hash": raw(f"x-response-hash: {HASH}\r\n"), "a hash without a signature": raw(f"x-se-signature: {SIGNATURE}\r\n"),
        "an empty header": raw(HASH, ""), "a key that is none": raw(SPKI_TEXT, SPKI_TEXT[:-4]),
        "a key of another form": raw(SPKI_TEXT, KEY), "two keys": raw(f"public-key: {KEY}", f"public-key: {OTHER_KEY}"),
        "a line that is none": raw("date: ", "date "), "a folded line": raw("x-provider-attested: true", "x-provider-attested: true\r\n more"),
        "no UTF-8": {"raw": {"find": "Sun", "replace_b64": b64(b"\xff")}}, "a flag that is none": raw("encrypted: true", "encrypted: yes"),
        "a method that is none": raw("date: ", "x-provider-authorization-method: word of mouth\r\ndate: "),
        "two serial numbers": raw("date: ", "x-provider-serial: A\r\nx-attestation-device-serial: B\r\ndate: "),
        "more than any reply has": {"raw": {"find": "date: ", "replace": "x", "times": 1 << 16}},
    }.items():
        case("response", f"headers, {title}", {"reply/form": "failed", "reply/signed": "absent", "feed/listed": "absent"}, headers=[edit])
    # What nobody signed.
    bad = {"reply/signed": "failed"}
    changed("another body", bad, body=[raw("Hello", "Hallo")])
    changed("a body with a line behind it", bad, body=[raw("}]}", "}]}\n")])
    changed("an empty body", bad, body=[{"raw": {"find": BODY.decode(), "replace": ""}}])
    changed("another body, and its hash", bad, body=[raw("Hello", "Hallo")],
            headers=[raw(HASH, "sha256:" + sha256(BODY.replace(b"Hello", b"Hallo")).hex())])
    changed("no signature", bad, headers=[raw(f"x-se-signature: {SIGNATURE}\r\nx-response-hash: {HASH}\r\n")])
    changed("a signature of another", bad, headers=[raw(SIGNATURE, proof(BODY, STRANGER)[0])])
    changed("streamed, another word", bad, reply="stream", body=[raw("Hel", "Hal")])
    changed("streamed, more in the last event", bad, reply="stream", headers=[raw(TRAILERS)],
            body=[raw('{"choices":[],', '{"choices":[],"usage":{},')])
    changed("streamed, a word in the last event", bad, reply="stream", headers=[raw(TRAILERS)],
            body=[raw('{"choices":[],', '{"choices":[{}],')])
    changed("streamed, something behind the end", bad, reply="stream", headers=[raw(TRAILERS)],
            body=[raw("data: [DONE]\n\n", "data: [DONE]\n\ndata: x\n\n")])
    changed("streamed, cut off", bad, reply="stream", headers=[raw(TRAILERS)], body=[raw("data: [DONE]\n\n")])
    changed("streamed, an event without its beginning", bad, reply="stream", headers=[raw(TRAILERS)],
            body=[raw('data: {"choices":[],', 'event: x\ndata: {"choices":[],')])
    changed("streamed, trailers of another reply", bad, reply="stream", headers=[raw(STREAM_SIGNATURE, SIGNATURE), raw(STREAM_HASH, HASH)])
    changed("streamed, an end with nothing before it", bad, reply="stream", headers=[raw(TRAILERS)],
            body=[{"raw": {"find": (CHUNKS.decode() + SEAL), "replace": ""}}])
    # What the feed does not have.
    changed("no key", {"reply/signed": "failed", "feed/listed": "failed"}, without=True,
            headers=[raw(f"x-se-public-key: {SPKI_TEXT}\r\n"), raw(f"x-attestation-se-public-key: {KEY}\r\n")])
    gone = {"feed/listed": "failed"}
    changed("gone from the feed", gone, without=True, feed=[drop("/providers/1")])
    changed("the feed of nobody", gone, without=True, feed=[put(providers=None)])
    changed("no feed", gone, without=True, feed=[put(anchor="moon")])
    changed("another provider's id", gone, without=True, headers=[raw(ID, OTHER_ID)])
    case("response", "a feed that is no JSON", {}, exit=2, feed=[raw("{", "x")])
    changed("a feed that says something else", {"feed/registration": "failed"}, feed=[put({"/providers/1/chip_name": "other"})])
    changed("a feed with the other in bad order", feed=[put({"/providers/0/chip_name": "other"})])
    # What the evidence does not say.
    about = {f"evidence/{claim}": "proved" for claim in ("apple", "ear")}
    changed("evidence about another key", {"evidence/same_key": "failed", "evidence/form": "absent", "evidence/subject": "failed"},
            evidence=[put(se_public_key=OTHER_KEY)])
    changed("evidence in another spelling of the key", {"evidence/same_key": "proved", "evidence/key_named": "failed"},
            evidence=[put(se_public_key=b64(b"\4" + point(SE)))])
    changed("evidence that is none", {"evidence/same_key": "proved", "evidence/form": "failed", "evidence/subject": "absent"},
            evidence=[put(bundle_version=2)])
    changed("evidence that is changed", {**about, "evidence/same_key": "proved", "evidence/sealed": "failed"},
            evidence=[put({"/security_info/observed_at": "2026-09-20T11:59:46Z"})])
    case("response", "evidence that is no JSON", {}, exit=2, evidence=[raw("{", "x")])


def main():
    feeds()
    replies()
    names = [made["name"] for made in CASES]
    assert len(set(names)) == len(names), "two cases of one name"
    (HERE / "feed.json").write_text(json.dumps(FEED, indent=1) + "\n")
    for file, data in (("body", BODY), ("headers", HEADERS.encode()), ("stream_headers", STREAM_HEADERS.encode()),
                       ("stream", CHUNKS + SEAL.encode() + b"data: [DONE]\n\n")):
        (HERE / file).write_bytes(data)
    rows = ",\n".join(json.dumps(made, ensure_ascii=False) for made in CASES)
    (HERE / "reply_cases.json").write_text(f"[\n{rows}\n]\n")
    print(len(CASES), "cases")


if __name__ == "__main__":
    main()
