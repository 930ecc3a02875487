#!/usr/bin/env python3
"""Makes what lies beside it, but for the files of the synthetic fixture (bundle.json, trust.json, jwks.json,
mda_test_root.pem): a bundle of every part and every seal, the trust file that it holds under, and cases.json.

What a case expects was decided from docs/verify.md, never copied from a verifier's answer. Keys are the hashes of
their names, so that anybody can make one more case; signatures differ from run to run.
"""
import base64
import hashlib
import hmac
import json
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils
from cryptography.x509.oid import NameOID

HERE = Path(__file__).parent
AT = "2026-09-20T12:00:30Z"
NOW = 1789905600  # 2026-09-20T12:00:00Z
ISSUER = "https://mdm.darkbloom.example"
ORIGIN = "log.darkbloom.example/posture/2026"
UNSEALED = ("ear", "log_entry_b64", "tlog_proof")
RULES = (HERE.parents[2] / "profiles/policies/strict.toml").read_text()
POLICY = '{"id":"device/2026-09-01","requires":["sip","secure_boot_full"]}'


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def b64(data):
    return base64.b64encode(data).decode()


def b64url(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def compact(value):
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def ec_key(name, curve=ec.SECP256R1()):
    return ec.derive_private_key(int.from_bytes(hashlib.sha512(name.encode()).digest(), "big") >> 264, curve)


def point(key, lead=b""):
    numbers = key.public_key().public_numbers()
    return lead + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")


SE, OTHER_SE, SERVICE, STRANGER = map(ec_key, ("secure enclave", "another secure enclave", "service", "stranger"))
KEY, KEY_65, OTHER_KEY = b64(point(SE)), b64(point(SE, b"\x04")), b64(point(OTHER_SE))
K = b64(sha256(b"x25519 key of a provider"))
SIGNED = {}


def sign(key, message):
    """DER. What was signed once is not signed again, so that a case differs only in what it is about."""
    place = (id(key), message)
    if place not in SIGNED:
        SIGNED[place] = key.sign(message, ec.ECDSA(hashes.SHA256()))
    return SIGNED[place]


# --- Apple's part -------------------------------------------------------------------------------------------------

CERTIFICATES = {}
DAY = timedelta(days=1)
ISSUED = datetime(2026, 9, 19, 3)
P384 = ec.SECP384R1()


def name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Made for Tests")])


def certificate(subject, issuer, *, ca, first=datetime(2022, 2, 16), last=datetime(2040, 2, 18), curve=P384, signer=None,
                issued_by=None, length=None, usage=True, basic=True, digest=None, oids=(), critical=None):
    place = repr((subject, issuer, ca, first, last, curve.name, signer, issued_by, length, usage, basic,
                  digest and digest.name, oids, critical))
    if place in CERTIFICATES:
        return CERTIFICATES[place]
    builder = (x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name(issued_by or issuer))
               .public_key(ec_key(subject, curve).public_key()).not_valid_before(first).not_valid_after(last)
               .serial_number(int.from_bytes(sha256(place.encode())[:8], "big") >> 1))
    if basic:
        builder = builder.add_extension(x509.BasicConstraints(ca, length), critical=True)
    flags = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign",
                           "encipher_only", "decipher_only", "key_cert_sign", "digital_signature"), False)
    flags["key_cert_sign" if ca and usage else "digital_signature"] = True
    builder = builder.add_extension(x509.KeyUsage(**flags), critical=True)
    for suffix, value in oids:
        oid = x509.ObjectIdentifier("1.2.840.113635.100.8." + suffix)
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), critical=suffix == critical)
    made = builder.sign(ec_key(signer or issuer, P384), digest or hashes.SHA384())
    CERTIFICATES[place] = made.public_bytes(serialization.Encoding.DER)
    return CERTIFICATES[place]


ROOT = certificate("Root", "Root", ca=True)
SUB = certificate("Sub CA", "Root", ca=True)
SERIAL = "FXMADE00001"


def leaf(freshness, change=None, under="Sub CA", **how):
    oids = {"10.1": b"26.4.1", "13.2": b"Full Security", "13.1": b"\x02\x01\x00", "13.3": b"\x02\x01\x00",
            "9.1": SERIAL.encode(), "9.2": b"00006041-0000000000000002", "11.1": freshness, **(change or {})}
    oids = tuple((suffix, value) for suffix, value in oids.items() if value is not None)
    how = {"ca": False, "first": ISSUED, "last": ISSUED + 90 * DAY, "oids": oids, **how}
    return certificate("Leaf", under, **how)


def transcript(key, minted_at, millis, **inputs):
    inputs = {"server_id": "mdm.darkbloom.example", "device_id": "dev_01K5MADE000000000000000001",
              "command_uuid": "0E0F2B52-70A5-4DA0-A6E0-0A6D9A1C1B2C", "minted_at": minted_at, "se_public_key": key, **inputs}
    texts = ["attestd-nonce-transcript-v1", inputs["server_id"], inputs["device_id"], inputs["command_uuid"],
             str(millis), inputs["se_public_key"]]
    code = sha256(*(len(text.encode()).to_bytes(4, "big") + text.encode() for text in texts))
    return {"scheme": "transcript-v1", "inputs": inputs}, code


def minted(millis):
    """A time of the day when Apple was asked: 2026-09-19T03:00:00Z and so many milliseconds."""
    moment = datetime(2026, 9, 19, 3) + timedelta(milliseconds=millis)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03}Z", 1789786800000 + millis


def beacon(key, *, entry=None, index=6, size=9, head_at="2026-09-19T02:57:30Z", said=None, **how):
    """By the head that a log had when this entry was its last; `said` is what the inputs have instead."""
    raw = compact({"v": 1, "type": "time", "iat": 1789786650, **(entry or {})})
    proof = in_log(raw, index=index, size=size, **how)
    inputs = {"origin": how.get("origin", ORIGIN), "size": index + 1, "root": b64(tree(leaves_of(size, index, raw)[:index + 1])),
              "head_at": head_at, "se_public_key": key, **(said or {})}
    origin = inputs["origin"].encode()
    number = inputs["size"] if type(inputs["size"]) is int else index + 1
    code = sha256(b"darkbloom-mda-nonce-v2\0", len(origin).to_bytes(2, "big"), origin, number.to_bytes(8, "big"),
                  base64.b64decode(inputs["root"]), key.encode())
    return {"scheme": "beacon-v2", "inputs": {name: value for name, value in inputs.items() if value is not None}, **proof}, code


def legacy(key):
    return {"scheme": "legacy-se-sha256"}, sha256(key.encode())


# --- the service's part ---------------------------------------------------------------------------------------------

def jws(claims, header=None, key=SERVICE):
    header = {"alg": "ES256", "kid": "ear-2026-09", "typ": "eat+jwt", **(header or {})}
    header = {member: value for member, value in header.items() if value is not None}
    return raw_jws(compact(header), compact(claims), key)


def raw_jws(header, claims, key=SERVICE):
    text = f"{b64url(header)}.{b64url(claims)}"
    r, s = utils.decode_dss_signature(sign(key, text.encode()))
    return f"{text}.{b64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def claims(change=None, module=None, seal=None, policy=POLICY):
    device = {"ear_status": "affirming", "ear_trustworthiness_vector": {"instance-identity": 2, "configuration": 2, "hardware": 2},
              "ear_appraisal_policy_ids": [f"{ISSUER}/v1/policies/{sha256(policy.encode()).hex()}"], **(module or {})}
    made = {"eat_profile": "tag:ietf.org,2026:rats/ear#04", "iss": ISSUER, "sub": subject(KEY), "jti": "01K5MADE", "iat": NOW,
            "exp": NOW + 3600, "ear_status": "affirming", "ear_verifier_id": {"developer": ISSUER, "build": "made for tests"},
            "submods": {"device": device}, "attestd": {"evidence_sha256": seal} if seal else None, **(change or {})}
    return {member: value for member, value in made.items() if value is not None}


def ed_key(text):
    return ed25519.Ed25519PrivateKey.from_private_bytes(sha256(text.encode()))


def ed_public(key):
    return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def vkey(signer, kind):
    public = bytes([kind]) + ed_public(ed_key(signer))
    return "+".join((signer, sha256(signer.encode(), b"\n", public)[:4].hex(), b64(public)))


def note(signer, kind, body, time=NOW):
    key_id = bytes.fromhex(vkey(signer, kind).split("+")[1])
    if kind == 4:
        signature = time.to_bytes(8, "big") + ed_key(signer).sign(f"cosignature/v1\ntime {time}\n{body}".encode())
    else:
        signature = ed_key(signer).sign(body.encode())
    return f"\u2014 {signer} {b64(key_id + signature)}\n"


def tree(hashes_below):
    if len(hashes_below) == 1:
        return hashes_below[0]
    half = 1 << (len(hashes_below) - 1).bit_length() - 1
    return sha256(b"\1", tree(hashes_below[:half]), tree(hashes_below[half:]))


def way(hashes_below, index):
    if len(hashes_below) == 1:
        return []
    half = 1 << (len(hashes_below) - 1).bit_length() - 1
    if index < half:
        return way(hashes_below[:half], index) + [tree(hashes_below[half:])]
    return way(hashes_below[half:], index - half) + [tree(hashes_below[:half])]


WITNESSES = ("witness1.example", "witness2.example")


def logged(token, about, change=None, index=5, size=11, origin=ORIGIN, signers=WITNESSES, log=ORIGIN):
    entry = compact({"v": 1, "type": "posture", "subject": about, "iat": NOW, "ear_sha256": sha256(token.encode()).hex(), **(change or {})})
    leaves = [sha256(b"\0", compact({"v": 1, "type": "filler", "n": n})) for n in range(size)]
    leaves[index] = sha256(b"\0", entry)
    body = f"{origin}\n{size}\n{b64(tree(leaves))}\n"
    proof = "".join(b64(other) + "\n" for other in way(leaves, index))
    signatures = note(log, 1, body) + "".join(note(signer, 4, body) for signer in signers)
    return {"log_entry_b64": b64(entry), "tlog_proof": f"c2sp.org/tlog-proof@v1\nindex {index}\n{proof}\n{body}\n{signatures}"}


# --- the bundle -----------------------------------------------------------------------------------------------------

SALT = sha256(b"salt")


def subject(key):
    return b64url(hmac.digest(SALT, key.encode(), "sha256"))


def registration(change=None, key=KEY, raw=None, signer=SE):
    blob = {"authenticatedRootEnabled": True, "chipName": "Apple M4 Max", "encryptionPublicKey": K, "hardwareModel": "Mac16,5",
            "osVersion": "Version 26.4.1", "publicKey": key, "rdmaDisabled": True, "secureBootEnabled": True,
            "secureEnclaveAvailable": True, "serialNumber": SERIAL, "sipEnabled": True, "timestamp": "2026-09-20T11:59:30Z",
            **(change or {})}
    raw = raw or compact({member: value for member, value in blob.items() if value is not None}).replace(b"/", b"\\/")
    return {"attestation_raw_b64": b64(raw), "signature_b64": b64(sign(signer, raw)), "encryption_public_key": K}


def challenge(change=None, status=None, raw=None, signer=SE, nonce=b64(sha256(b"a nonce")), timestamp="2026-09-20T11:59:58Z"):
    said = {"binary_hash": "a1" * 32, "model_hashes": {"Qwen3.5-9B": "e5" * 32, "gemma/\u2028<4>": "d4" * 32}, "nonce": nonce,
            "rdma_disabled": True, "secure_boot_enabled": True, "sip_enabled": True, "timestamp": timestamp, **(status or {})}
    raw = raw or compact({member: value for member, value in said.items() if value is not None}).replace("\u2028".encode(), b"\\u2028")
    return {"nonce": nonce, "timestamp": timestamp, "signature_b64": b64(sign(signer, (nonce + timestamp).encode())),
            "status_raw_b64": b64(raw), "status_signature_b64": b64(sign(SE, raw)), "received_at": "2026-09-20T11:59:59.250Z",
            **(change or {})}


def mda(how, chain=None, **leaf_how):
    nonce, code = how
    return {"chain_b64": [b64(der) for der in chain or (leaf(code, **leaf_how), SUB)], "nonce": nonce,
            "command_uuid": "0E0F2B52-70A5-4DA0-A6E0-0A6D9A1C1B2C", "observed_at": "2026-09-19T03:00:10Z"}


HOW = transcript(KEY, *minted(10_250))


def bundle(**parts):
    key = parts.pop("key", KEY)
    made = {"bundle_version": 1, "profile": "tag:darkbloom.example,2026:evidence-bundle#1", "generated_at": "2026-09-20T12:00:00Z",
            "subject": subject(key), "subject_opening": {"salt_b64": b64(SALT)}, "se_public_key": key,
            "registration": registration(), "challenge": challenge(),
            "security_info": {"command_uuid": "5D1C0F0A-2C26-4B55-9B0D-0C1A5A6B7C8D", "observed_at": "2026-09-20T11:59:47Z",
                              "fields": {"SystemIntegrityProtectionEnabled": True, "SecureBoot.SecureBootLevel": "full"}},
            "mda": mda(HOW), "policy": {"id": "device/2026-09-01", "text": POLICY}, "ear": jws(claims()), **parts}
    return {member: part for member, part in made.items() if part is not None}


def sealed(**parts):
    made = bundle(**parts)
    seal = sha256(compact({member: part for member, part in made.items() if member not in UNSEALED})).hex()
    made["ear"] = jws(claims(seal=seal))
    return made | logged(made["ear"], made["subject"])


def jwk(kid, key, **more):
    x, y = point(key)[:32], point(key)[32:]
    return {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid, "x": b64url(x), "y": b64url(y), **more}


TRUST = {"mda_root_sha256": sha256(ROOT).hex(), "mda_root_pem_file": "made_root.pem", "issuer": ISSUER,
         "jwks": {"keys": [jwk("ear-2026-09", SERVICE, nbf=NOW - 86400), jwk("ear-2026-03", ec_key("former"), nbf=NOW - 9000000, exp=NOW - 1),
                           jwk("ear-lost", ec_key("lost"), nbf=NOW - 86400, revoked_at=NOW + 5), jwk("ear-next", ec_key("next"), nbf=NOW + 1)]},
         "log_vkey": vkey(ORIGIN, 1), "witness_vkeys": [vkey(signer, 4) for signer in WITNESSES], "witness_quorum": 2}
PLAIN, SEALED = bundle(), sealed()

# --- the cases ------------------------------------------------------------------------------------------------------

CASES = []


def case(title, expect, *edits, on="made", at=AT, exit=None, trust=(), by=None):
    """`expect` are the standings of the claims that the case is about; the verdict follows from whether one failed."""
    verdict = "refused" if "failed" in expect.values() else "verified"
    files = {"fixture": ("bundle.json", "trust.json"), "made": ("made.json", "made_trust.json"),
             "sealed": ("sealed.json", "made_trust.json")}[on]
    made = {"name": title, "bundle": files[0], "trust": files[1], "at": at, "edits": list(edits), "trust_edits": list(trust),
            "expect": {"verdict": verdict, "exit": exit if exit is not None else int(verdict == "refused"), "claims": expect}}
    if by:
        made["expect"]["by"] = by
    CASES.append(made)


def put(**members):
    return {"set": {"/" + pointer.replace("__", "/"): value for pointer, value in members.items()}}


def drop(*pointers):
    return {"remove": list(pointers)}


def raw(find, replace="", times=1, b64=None):
    return {"raw": {"find": find, **({"replace_b64": b64} if b64 else {"replace": replace}), **({"times": times} if times != 1 else {})}}


def flip(text, at=0):
    """Another letter of the same alphabet in one place."""
    return text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1:]


FORM = {"form": "failed"}


def forms():
    bad = lambda title, *edits, **how: case("form: " + title, FORM, *edits, **how)
    bad("no JSON at all", raw("{", "<"), exit=2)
    bad("no subject", drop("/subject"))
    bad("a subject that is no text", put(subject=7))
    bad("no time", drop("/generated_at"))
    bad("a time that is none", put(generated_at="noon"))
    bad("cut off", raw('"bundle_version"', '"bundle_version'))
    bad("something behind it", raw("\n}\n", "\n} {}\n"))
    bad("not UTF-8", raw("evidence-bundle", b64=b64(b"evidence\xffbundle")))
    bad("a byte order mark", raw("{", "\ufeff{"))
    bad("half of a surrogate pair", raw("evidence-bundle", "\\ud800"))
    nested = lambda depth: raw('"tag:darkbloom.example,2026:evidence-bundle#1"', "[" * depth + "]" * depth)
    bad("deeper than 127", nested(127))
    case("form: 127 deep", {"registration": "proved"}, nested(126))
    bad("arrays without end", raw('"profile": "', "[", 100_000))
    bad("larger than a mebibyte", raw("evidence-bundle", "x", (1 << 20) + 1))
    bad("an array", raw("{", "[{"), raw("\n}\n", "\n}]\n"))
    bad("a name twice at the top", raw('"bundle_version"', '"bundle_version": 1, "bundle_version"'))
    bad("a name twice below", raw('"salt_b64"', '"salt_b64": "", "salt_b64"'))
    bad("the same name in two spellings", raw('"salt_b64"', '"salt\\u005fb64": "", "salt_b64"'))
    bad("an unknown member", put(extra=1))
    bad("a member in other letters", put(EAR="x"))
    bad("version 2", put(bundle_version=2))
    bad("version in quotation marks", put(bundle_version="1"))
    bad("version true", put(bundle_version=True))
    bad("version 1.0", raw('"bundle_version": 1', '"bundle_version": 1.0'))
    bad("no version", drop("/bundle_version"))
    bad("no key", drop("/se_public_key"))
    bad("a key that is no text", put(se_public_key=5))
    bad("a key of 63 bytes", put(se_public_key=b64(point(SE)[1:])))
    bad("a key of 65 bytes that begin with 05", put(se_public_key=b64(point(SE, b"\x05"))))
    bad("a compressed key", put(se_public_key=b64(b"\x02" + point(SE)[:32])))
    bad("a key that is no point", put(se_public_key=b64(point(SE)[:63] + bytes([point(SE)[63] ^ 1]))))
    bad("a key without its padding", put(se_public_key=KEY.rstrip("=")))
    bad("a key in base64url", put(se_public_key=base64.urlsafe_b64encode(point(SE)).decode() if "+" in KEY or "/" in KEY else "-" + KEY[1:]))
    bad("a key with a line break", put(se_public_key=KEY + "\n"))
    # 88 letters for 64 bytes: four bits of the last letter say nothing.
    bad("a key in a second spelling of its base64", put(se_public_key=KEY[:85] + chr(ord(KEY[85]) + 1) + "==" if KEY[85] in "AQgw" else KEY[:-2]))


def subjects():
    bad = lambda title, *edits: case("subject: " + title, {"subject": "failed"}, *edits)
    case("subject: not opened", {"subject": "asserted", "registration": "proved"}, drop("/subject_opening"), by={"subject": "service"})
    bad("of another key", put(subject=subject(OTHER_KEY), ear=jws(claims({"sub": None}))))
    bad("another salt", put(subject_opening__salt_b64=b64(sha256(b"pepper"))))
    bad("opened without a salt", drop("/subject_opening/salt_b64"))
    bad("an opening that is none", put(subject_opening=None))
    bad("with padding", put(subject=subject(KEY) + "=", ear=jws(claims({"sub": None}))))


def registrations():
    ok = lambda title, part: case("registration: " + title, {"registration": "proved"}, put(registration=part))
    bad = lambda title, part, **how: case("registration: " + title, {"registration": "failed"}, put(registration=part), **how)
    good = registration()
    ok("the blob spells the key with its 04", registration(key=KEY_65))
    ok("members nobody knows", registration({"somethingNew": [1, 2]}))
    case("registration: none is none", {"registration": "absent", "apple_posture": "proved"}, drop("/registration"))
    bad("null", None)
    bad("a list", [])
    bad("the signature of another key", registration(signer=OTHER_SE))
    bad("the signature of something else", {**good, "signature_b64": challenge()["signature_b64"]})
    bad("a byte behind the signature", {**good, "signature_b64": b64(base64.b64decode(good["signature_b64"]) + b"\0")})
    r, s = utils.decode_dss_signature(base64.b64decode(good["signature_b64"]))
    order = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551
    ok("a high S is as good as a low one", {**good, "signature_b64": b64(utils.encode_dss_signature(r, order - s))})
    der = base64.b64decode(good["signature_b64"])
    bad("a length in two bytes", {**good, "signature_b64": b64(b"\x30\x81" + der[1:])})
    bad("a signature that is not DER", {**good, "signature_b64": b64(r.to_bytes(32, "big") + s.to_bytes(32, "big"))})
    bad("one byte of the blob", {**good, "attestation_raw_b64": b64(base64.b64decode(good["attestation_raw_b64"]).replace(b"M4", b"M5"))})
    bad("publicKey is another", registration({"publicKey": OTHER_KEY}))
    bad("no publicKey", registration({"publicKey": None}))
    bad("encryptionPublicKey is another", registration({"encryptionPublicKey": b64(sha256(b"another"))}))
    bad("encryption_public_key is another", {**good, "encryption_public_key": b64(sha256(b"another"))})
    bad("neither has an encryption key", {m: v for m, v in registration({"encryptionPublicKey": None}).items() if m != "encryption_public_key"})
    for flag in ("sipEnabled", "secureBootEnabled", "secureEnclaveAvailable"):
        bad(f"{flag} is false", registration({flag: False}))
        bad(f"{flag} is missing", registration({flag: None}))
    bad("sipEnabled is 1", registration({"sipEnabled": 1}))
    bad("sipEnabled is a text", registration({"sipEnabled": "true"}))
    bad("a name twice in the blob", registration(raw=base64.b64decode(good["attestation_raw_b64"]).replace(b'{"auth', b'{"sipEnabled":false,"auth')))
    bad("the blob is no JSON", registration(raw=b"blob"))


def challenges():
    bad = lambda title, part: case("challenge: " + title, {"challenge": "failed"}, put(challenge=part))
    ok = lambda title, part, *more: case("challenge: " + title, {"challenge": "proved"}, put(challenge=part), *more)
    case("challenge: none is none", {"challenge": "absent", "status": "absent"}, drop("/challenge"))
    bad("the signature of another key", challenge(signer=OTHER_SE))
    bad("another nonce", challenge({"nonce": b64(sha256(b"another nonce"))}))
    bad("another timestamp", challenge({"timestamp": "2026-09-20T11:59:57Z"}))
    bad("a nonce of 31 bytes", challenge(nonce=b64(b"n" * 31)))
    bad("a nonce in base64url", challenge(nonce=b64(b"\xff" * 32).replace("/", "_")))
    bad("received more than a minute before it was asked", challenge({"received_at": "2026-09-20T11:58:57.999Z"}))
    ok("received a minute before, by another clock", challenge({"received_at": "2026-09-20T11:58:58Z"}))
    bad("never received", {m: v for m, v in challenge().items() if m != "received_at"})
    ok("sixteen minutes old", challenge(timestamp="2026-09-20T11:44:00Z"))
    bad("older than sixteen minutes", challenge(timestamp="2026-09-20T11:43:59Z"))
    ok("a minute after the bundle", challenge(timestamp="2026-09-20T12:01:00Z"), put(challenge__received_at="2026-09-20T12:01:00Z"))
    bad("more than a minute after the bundle", challenge({"received_at": "2026-09-20T12:01:01Z"}, timestamp="2026-09-20T12:01:01Z"))
    bad("a time with an offset", challenge(timestamp="2026-09-20T11:59:58+00:00"))
    bad("a time in small letters", challenge({"received_at": "2026-09-20t11:59:59z"}))
    bad("a time with a blank", challenge({"received_at": "2026-09-20 11:59:59Z"}))
    bad("a day that there is not", challenge({"received_at": "2026-09-31T11:59:59Z"}))


def statuses():
    bad = lambda title, part: case("status: " + title, {"challenge": "proved", "status": "failed"}, put(challenge=part))
    ok = lambda title, part: case("status: " + title, {"challenge": "proved", "status": "proved"}, put(challenge=part))
    text = base64.b64decode(challenge()["status_raw_b64"])
    case("status: none is none", {"challenge": "proved", "status": "absent"}, drop("/challenge/status_raw_b64", "/challenge/status_signature_b64"))
    case("status: bytes without a signature", {"status": "failed"}, drop("/challenge/status_signature_b64"))
    case("status: a signature without bytes", {"status": "failed"}, drop("/challenge/status_raw_b64"))
    bad("one byte", challenge({"status_raw_b64": b64(text.replace(b"a1a1", b"a1a2", 1))}))
    bad("the challenge's signature", challenge({"status_signature_b64": challenge()["signature_b64"]}))
    bad("white space", challenge(raw=text.replace(b",", b", ")))
    bad("a line end", challenge(raw=text + b"\n"))
    bad("another order", challenge(raw=b'{"timestamp":"2026-09-20T11:59:58Z",' + text[1:].replace(b',"timestamp":"2026-09-20T11:59:58Z"', b"")))
    bad("an order that ignores case", challenge(raw=text.replace(b'"Qwen3.5-9B":"' + b"e5" * 32 + b'",', b"").replace(
        b'"' + b"d4" * 32 + b'"}', b'"' + b"d4" * 32 + b'","Qwen3.5-9B":"' + b"e5" * 32 + b'"}')))
    bad("an escaped slash", challenge(raw=text.replace(b"gemma/", b"gemma\\/")))
    bad("a line separator that is not escaped", challenge(raw=text.replace(b"\\u2028", "\u2028".encode())))
    bad("a null", challenge(raw=text.replace(b'"rdma_disabled":true', b'"python_hash":null,"rdma_disabled":true')))
    bad("an empty text", challenge(status={"python_hash": ""}))
    bad("an empty object", challenge(status={"template_hashes": {}}))
    bad("a member that is no part of a status", challenge(status={"zeal": True}))
    bad("a flag that is a text", challenge(status={"rdma_disabled": "true"}))
    bad("a hash that is a number", challenge(status={"binary_hash": 5}))
    bad("a name twice", challenge(raw=text.replace(b'"sip_enabled":true', b'"sip_enabled":false,"sip_enabled":true')))
    bad("SIP off", challenge(status={"sip_enabled": False}))
    bad("SIP not said", challenge(status={"sip_enabled": None}))
    bad("Secure Boot off", challenge(status={"secure_boot_enabled": False}))
    ok("Secure Boot not said", challenge(status={"secure_boot_enabled": None}))
    ok("an explicit false stays", challenge(status={"rdma_disabled": False}))
    bad("to another nonce", challenge(status={"nonce": b64(sha256(b"another nonce"))}))
    bad("to another time", challenge(status={"timestamp": "2026-09-20T11:59:57Z"}))


def apples():
    how, code = HOW
    good = leaf(code)
    failed = {"apple": "failed", "key_named": "failed", "apple_posture": "failed"}
    proved = {"apple": "proved", "key_named": "proved", "apple_posture": "proved"}
    bad = lambda title, chain, **more: case("apple: " + title, failed, put(mda=mda(HOW, chain)), **more)
    ok = lambda title, chain, **more: case("apple: " + title, proved, put(mda=mda(HOW, chain)), by={"apple": "custom"}, **more)
    case("apple: none is none", {"apple": "absent", "key_named": "absent", "apple_posture": "absent"}, drop("/mda"))
    case("apple: only the hash of a chain", {"apple": "asserted", "key_named": "absent", "apple_posture": "absent"},
         drop("/mda/chain_b64"), put(mda__chain_sha256=sha256(good, SUB).hex()), by={"apple": "service"})
    case("apple: a hash of a chain that is none", {"apple": "failed"}, drop("/mda/chain_b64"), put(mda__chain_sha256="chain"))
    case("apple: neither chain nor hash", {"apple": "failed"}, drop("/mda/chain_b64"))
    ok("the root is its last", (good, SUB, ROOT))
    sub_2 = certificate("Sub CA 2", "Sub CA", ca=True)
    bad("two authorities below the root", (leaf(code, under="Sub CA 2"), sub_2, SUB))
    bad("two authorities and the root", (leaf(code, under="Sub CA 2"), sub_2, SUB, ROOT))
    bad("right under the root", (leaf(code, under="Root"), ROOT))
    bad("one certificate", (good,))
    bad("five certificates", (good, SUB, SUB, SUB, ROOT))
    bad("upside down", (SUB, good))
    bad("the intermediate is missing", (good, ROOT))
    bad("the intermediate twice", (good, SUB, SUB))
    other = certificate("Another Root", "Another Root", ca=True)
    case("apple: another root is pinned", failed, trust=[put(mda_root_sha256=sha256(other).hex())])
    case("apple: the pin is not the file's", failed, trust=[put(mda_root_sha256="17082aed71711cbcbec3cf67c8d92197304a7887a5934fe8524e04899fb903b3")])
    case("apple: no root is pinned, so it is Apple's", failed, trust=[drop("/mda_root_sha256", "/mda_root_pem_file")])
    bad("another root at its end", (good, SUB, other))
    bad("another root, that also issued the intermediate", (good, certificate("Sub CA", "Another Root", ca=True), other))
    bad("the leaf is another authority's", (leaf(code, signer="Sub CA 2"), SUB))
    bad("the intermediate is another root's", (good, certificate("Sub CA", "Root", ca=True, signer="Another Root")))
    bad("another name of the issuer", (leaf(code, issued_by="Sub CA 2", under="Sub CA"), SUB))
    bad("an authority as leaf", (leaf(code, ca=True), SUB))
    ok("a leaf that says nothing of authorities", (leaf(code, basic=False), SUB))
    bad("a leaf as authority", (leaf(code), certificate("Sub CA", "Root", ca=False)))
    bad("an authority that does not say so", (leaf(code), certificate("Sub CA", "Root", ca=True, basic=False)))
    bad("an authority that may not sign certificates", (leaf(code), certificate("Sub CA", "Root", ca=True, usage=False)))
    bad("a path longer than an authority allows", (leaf(code, under="Sub CA 2"), sub_2, certificate("Sub CA", "Root", ca=True, length=0)))
    ok("a path as long as an authority allows", (good, certificate("Sub CA", "Root", ca=True, length=0)))
    bad("a leaf of P-256", (leaf(code, curve=ec.SECP256R1()), SUB))
    bad("signed with SHA-256", (leaf(code, digest=hashes.SHA256()), SUB))
    bad("a critical extension that nobody knows", (leaf(code, {"99.1": b"x"}, critical="99.1"), SUB))
    ok("an extension that nobody knows", (leaf(code, {"99.1": b"x"}), SUB))
    bad("an intermediate that is over", (good, certificate("Sub CA", "Root", ca=True, last=datetime(2026, 9, 20, 12))))
    case("apple: the leaf's last second", proved, put(ear=jws(claims({"iat": 1797562800, "exp": 1797562900}))), at="2026-12-18T03:00:00Z")
    case("apple: a second later", failed, put(ear=jws(claims({"iat": 1797562800, "exp": 1797562900}))), at="2026-12-18T03:00:01Z")
    case("apple: before the leaf begins", failed, at="2026-09-19T02:59:59Z")
    spare = lambda der: der[:-1] + bytes([der[-1] ^ 1])
    bad("one byte of the leaf's signature", (spare(good), SUB))
    bad("a byte behind the leaf", (good + b"\0", SUB))
    at_signature = good.rindex(bytes.fromhex("300a06082a8648ce3d040303"))
    bad("the algorithm's second mention is another", (good[:at_signature + 11] + b"\x02" + good[at_signature + 12:], SUB))
    at_bits = at_signature + 14
    even = next(der for der in (leaf(code, {"10.2": str(n).encode()}) for n in range(40)) if der[-1] & 1 == 0)
    at_bits = even.rindex(bytes.fromhex("300a06082a8648ce3d040303")) + 14
    bad("the signature's last bit counts for nothing", (even[:at_bits] + b"\x01" + even[at_bits + 1:], SUB))
    case("apple: a chain that is a text", failed, put(mda__chain_b64=b64(good)))
    case("apple: a certificate that is a number", failed, put(mda__chain_b64=[1, 2]))
    case("apple: a certificate in base64url", failed, put(mda__chain_b64=[b64url(good), b64(SUB)]))

    named = lambda standing, title, part, *more, **how: case(
        "key_named: " + title, {"apple": "proved", "key_named": standing}, put(mda=part), *more, **how)
    named("proved", "by the historic scheme", mda(legacy(KEY)))
    named("proved", "by a checkpoint of the log", mda(beacon(KEY)))
    named("proved", "minted at a whole second", mda(transcript(KEY, "2026-09-19T03:00:10Z", 1789786810000)))
    lucky = next(how for how in (transcript(KEY, *minted(n)) for n in range(10_000_000)) if how[1][:2] == b"\x04\x1e")
    named("proved", "a code that looks like an OCTET STRING", mda(lucky))
    named("failed", "that looks like one, and was unwrapped", mda((lucky[0], lucky[1][2:])))
    named("failed", "a code in an OCTET STRING", mda((how, b"\x04\x20" + code)))
    named("failed", "no code", mda(HOW, change={"11.1": None}))
    named("failed", "the code of another key", mda(legacy(OTHER_KEY)))
    named("failed", "the code of the other spelling of the key", mda(legacy(KEY_65)))
    named("failed", "a transcript that names another key", mda(transcript(OTHER_KEY, *minted(10_250))))
    named("failed", "a transcript that names no key", mda(transcript("", *minted(10_250))))
    named("failed", "a checkpoint's code for another key", mda(beacon(OTHER_KEY)))
    for field, value in (("server_id", "other.example"), ("device_id", "dev_other"), ("minted_at", minted(10_251)[0])):
        case(f"key_named: another {field}", {"apple": "proved", "key_named": "failed"}, put(**{"mda__nonce__inputs__" + field: value}))
    named("failed", "a UUID in other letters", mda(({**how, "inputs": {**how["inputs"], "command_uuid": how["inputs"]["command_uuid"].lower()}}, code)))
    case("key_named: an input is missing", {"key_named": "failed"}, drop("/mda/nonce/inputs/device_id"))
    case("key_named: the key is missing among the inputs", {"key_named": "failed"}, drop("/mda/nonce/inputs/se_public_key"))
    case("key_named: no inputs", {"key_named": "failed"}, drop("/mda/nonce/inputs"))
    case("key_named: no nonce", {"key_named": "failed"}, drop("/mda/nonce"))
    case("key_named: a scheme nobody knows", {"key_named": "failed"}, put(mda__nonce__scheme="epoch-hmac-v1"))
    by_head = lambda standing, title, *more, **how: named(standing, "by a head of the log: " + title, mda(beacon(KEY, **how)), *more)
    for index, size in ((0, 1), (0, 9), (3, 4), (3, 9), (7, 8), (7, 9), (8, 9), (12, 300)):
        by_head("proved", f"entry {index} of {size}", index=index, size=size)
    by_head("proved", "the entry is of any kind", entry={"type": "posture", "subject": "x"})
    by_head("failed", "another size", said={"size": 8})
    by_head("failed", "a size that is a text", said={"size": "7"})
    by_head("failed", "a size with a fraction", said={"size": 7.0})
    by_head("failed", "a root that no log had", said={"root": b64(sha256(b"a root"))})
    by_head("failed", "the root of the whole log", said={"root": b64(tree(leaves_of(9, 6, compact({"v": 1, "type": "time", "iat": 1789786650}))))})
    by_head("failed", "a root that is too short", said={"root": b64(b"a root")})
    by_head("failed", "another log is said", said={"origin": "log.example"})
    by_head("failed", "another log", origin="log.example")
    by_head("failed", "another time is said", head_at="2026-09-19T02:57:31Z")
    by_head("failed", "a fraction of a second more", head_at="2026-09-19T02:57:30.001Z")
    by_head("failed", "no time is said", head_at=None)
    by_head("failed", "the entry has no time", entry={"iat": None})
    by_head("failed", "the entry's time is a text", entry={"iat": "1789786650"})
    by_head("failed", "the entry's time has a fraction", entry={"iat": 1789786650.0})
    by_head("failed", "one witness where two are asked for", signers=WITNESSES[:1])
    by_head("failed", "no proof", drop("/mda/nonce/tlog_proof"))
    by_head("failed", "no entry", drop("/mda/nonce/log_entry_b64"))
    by_head("failed", "another entry", {"set": {"/mda/nonce/log_entry_b64": b64(compact({"v": 1, "type": "time", "iat": 1789786651}))}})
    case("key_named: by a head of the log: no log is trusted", {"apple": "proved", "key_named": "failed"}, put(mda=mda(beacon(KEY))), trust=[drop("/log_vkey")])
    spelled = bundle(key=KEY_65, mda=mda(legacy(KEY_65)), ear=jws(claims({"sub": subject(KEY_65)})))
    case("key_named: everything by the key's spelling with 04", {"subject": "proved", "registration": "proved", **proved, "ear": "proved"},
         {"set": {"/" + m: part for m, part in spelled.items() if PLAIN[m] != part}})

    posture = lambda standing, title, change, *more: case(
        "apple_posture: " + title, {"apple": "proved", "key_named": "proved", "apple_posture": standing}, put(mda=mda(HOW, change=change)), *more)
    posture("failed", "SIP off", {"13.1": b"\x02\x01\x01"})
    posture("failed", "SIP as a BOOLEAN", {"13.1": b"\x01\x01\x00"})
    posture("failed", "SIP not minimally encoded", {"13.1": b"\x02\x02\x00\x00"})
    posture("failed", "nothing of SIP", {"13.1": None})
    posture("failed", "Reduced Security", {"13.2": b"Reduced Security"})
    posture("failed", "Full Security in a DER string", {"13.2": b"\x0c\x0dFull Security"})
    posture("failed", "Full Security and something", {"13.2": b"Full Security "})
    posture("failed", "nothing of Secure Boot", {"13.2": None})
    posture("failed", "third-party kernel extensions", {"13.3": b"\x02\x01\x01"})
    posture("failed", "nothing of kernel extensions", {"13.3": None})
    posture("failed", "no serial number", {"9.1": None})
    posture("failed", "an empty serial number", {"9.1": b""})
    posture("failed", "another serial number than the blob's", {"9.1": b"FXMADE00002"})
    posture("failed", "a blob that cannot be read", {}, put(registration__attestation_raw_b64="blob"))
    posture("proved", "a blob without a serial number", {"9.1": b"FXMADE00002"}, put(registration=registration({"serialNumber": None})))


def infos():
    bad = lambda title, *edits: case("security_info: " + title, {"security_info": "failed"}, *edits)
    sip, boot = "security_info__fields__SystemIntegrityProtectionEnabled", "security_info__fields__SecureBoot.SecureBootLevel"
    case("security_info: none is none", {"security_info": "absent"}, drop("/security_info"))
    bad("SIP off", put(**{sip: False}))
    bad("SIP is a text", put(**{sip: "true"}))
    bad("SIP is 1", put(**{sip: 1}))
    bad("nothing of SIP", drop("/security_info/fields/SystemIntegrityProtectionEnabled"))
    bad("medium", put(**{boot: "medium"}))
    bad("nothing of Secure Boot", drop("/security_info/fields/SecureBoot.SecureBootLevel"))
    bad("no fields", drop("/security_info/fields"))


def ears():
    bad = lambda title, token, *more, **how: case("ear: " + title, {"ear": "failed"}, put(ear=token), *more, **how)
    ok = lambda title, token, **how: case("ear: " + title, {"ear": "proved"}, put(ear=token), **how)
    good = PLAIN["ear"]
    head, body, signature = good.split(".")
    case("ear: none is none", {"ear": "absent", "sealed": "absent"}, drop("/ear", "/policy"))
    bad("alg none", f"{b64url(compact({'alg': 'none', 'typ': 'eat+jwt', 'kid': 'ear-2026-09'}))}.{body}.")
    bad("alg none with a signature", jws(claims(), {"alg": "none"}))
    bad("alg HS256", jws(claims(), {"alg": "HS256"}))
    bad("alg in small letters", jws(claims(), {"alg": "es256"}))
    bad("crit", jws(claims(), {"crit": ["exp"]}))
    bad("an empty crit", jws(claims(), {"crit": []}))
    bad("typ JWT", jws(claims(), {"typ": "JWT"}))
    bad("no typ", jws(claims(), {"typ": None}))
    bad("a header with a name twice", raw_jws(b'{"alg":"none","alg":"ES256","kid":"ear-2026-09","typ":"eat+jwt"}', compact(claims())))
    bad("claims with a name twice", raw_jws(compact({"alg": "ES256", "kid": "ear-2026-09", "typ": "eat+jwt"}), compact(claims()).replace(b'{"ear', b'{"exp":9999999999,"ear')))
    bad("an unknown kid", jws(claims(), {"kid": "ear-2027"}))
    bad("no kid", jws(claims(), {"kid": None}))
    bad("the signature of a stranger", jws(claims(), key=STRANGER))
    bad("a revoked key", jws(claims(), {"kid": "ear-lost"}, ec_key("lost")))
    bad("a key whose time was over", jws(claims(), {"kid": "ear-2026-03"}, ec_key("former")))
    ok("a former key, dated in its time", jws(claims({"iat": NOW - 100}), {"kid": "ear-2026-03"}, ec_key("former")))
    bad("a key whose time is to come", jws(claims(), {"kid": "ear-next"}, ec_key("next")))
    bad("the service's keys are not trusted", good, trust=[drop("/jwks")])
    bad("the key is of another curve", good, trust=[put(jwks__keys__0__crv="P-384")])
    bad("the key is for another algorithm", good, trust=[put(jwks__keys__0__alg="RS256")])
    bad("no issuer is trusted", good, trust=[drop("/issuer")])
    bad("another issuer", jws(claims({"iss": "https://mdm.example"})))
    bad("the issuer with a slash", jws(claims({"iss": ISSUER + "/"})))
    bad("no issuer is named", jws(claims({"iss": None})))
    bad("about another subject", jws(claims({"sub": subject(OTHER_KEY)})))
    ok("about nobody by name", jws(claims({"sub": None})))
    bad("another profile", jws(claims({"eat_profile": "tag:github.com,2023:veraison/ear"})))
    bad("no profile", jws(claims({"eat_profile": None})))
    bad("iat a fraction", jws(claims({"iat": NOW + 0.5})))
    bad("iat true", jws(claims({"iat": True})), trust=[drop("/jwks/keys/0/nbf")])
    bad("iat a text", jws(claims({"iat": str(NOW)})))
    bad("no iat", jws(claims({"iat": None})))
    bad("no exp", jws(claims({"exp": None})))
    ok("a minute ahead", jws(claims({"iat": NOW + 90})))
    bad("more than a minute ahead", jws(claims({"iat": NOW + 91})))
    ok("its last moment", good, at="2026-09-20T12:59:59.999Z")
    bad("over", good, at="2026-09-20T13:00:00Z")
    bad("no submodule", jws(claims({"submods": {}})), drop("/policy"))
    bad("submodules that are a list", jws(claims({"submods": []})), drop("/policy"))
    vector = lambda **values: {"ear_trustworthiness_vector": {member.replace("_", "-"): value for member, value in values.items()}}
    bad("affirming over a warning", jws(claims(module=vector(hardware=2, configuration=32))))
    bad("affirming over what is contraindicated", jws(claims(module=vector(hardware=2, configuration=96))))
    bad("affirming over a negative warning", jws(claims(module=vector(configuration=-33))))
    bad("affirming over what says nothing", jws(claims(module=vector(configuration=1))))
    bad("affirming over an empty vector", jws(claims(module=vector())))
    bad("affirming without a vector", jws(claims(module={"ear_trustworthiness_vector": None})))
    bad("a warning over what is contraindicated", jws(claims({"ear_status": "warning"}, {"ear_status": "warning", **vector(configuration=-97)})))
    bad("better at the top than below", jws(claims(module={"ear_status": "contraindicated", **vector(configuration=96)})))
    bad("a status nobody knows", jws(claims(module={"ear_status": "excellent"})))
    bad("a value that is no signed byte", jws(claims(module=vector(hardware=2, configuration=300))))
    bad("a value that is a text", jws(claims(module=vector(hardware="2"))))
    bad("one of two submodules is better than its vector", jws(claims({"submods": {**claims()["submods"], "z": {**claims()["submods"]["device"], **vector(hardware=97)}}})))
    ok("affirming at the border", jws(claims(module=vector(configuration=31, hardware=-32))))
    ok("no verdict", jws(claims({"ear_status": "none"}, {"ear_status": "none", **vector(configuration=36)})))
    ok("worse than its vector", jws(claims({"ear_status": "contraindicated"}, {"ear_status": "warning", **vector(hardware=2)})))
    ok("contraindicated, said as such", jws(claims({"ear_status": "contraindicated"}, {"ear_status": "contraindicated", **vector(configuration=96)})))
    ok("nothing at the top", jws(claims({"ear_status": None})))
    r, s = utils.decode_dss_signature(sign(SERVICE, f"{head}.{body}".encode()))
    bad("the signature in DER", f"{head}.{body}.{b64url(utils.encode_dss_signature(r, s))}")
    bad("a byte less in the signature", f"{head}.{body}.{b64url((r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))[:63])}")
    bad("no signature", f"{head}.{body}.")
    bad("padding", f"{head}.{body}.{signature}==")
    # 86 letters for 64 bytes: four bits of the last letter say nothing.
    bad("a second spelling of the signature", f"{head}.{body}.{signature[:-1]}{chr(ord(signature[-1]) + 1)}")
    bad("two parts", f"{head}.{body}")
    bad("four parts", good + "." + signature)
    bad("a line end", good + "\n")
    bad("not text", {"protected": head, "payload": body, "signature": signature})
    bad("claims that are a list", raw_jws(base64.urlsafe_b64decode(head + "=="), b"[1]"), drop("/policy"))
    bad("other claims under the same signature", f"{head}.{b64url(compact(claims({'exp': NOW + 99999})))}.{signature}")


def seals():
    everything = dict.fromkeys(("subject", "registration", "challenge", "status", "apple", "key_named", "apple_posture", "ear",
                                "sealed", "policy", "log"), "proved") | {"security_info": "asserted"}
    case("sealed: all of it", everything, on="sealed", by={"apple": "custom", "key_named": "custom", "sealed": "service", "log": "log", "policy": "arithmetic"})
    case("sealed: the order of the names says nothing", everything, drop("/subject"), put(subject=SEALED["subject"]), on="sealed")
    case("sealed: no seal is none", {"ear": "proved", "sealed": "absent"})
    bad = lambda title, *edits: case("sealed: " + title, {"ear": "proved", "sealed": "failed"}, *edits, on="sealed")
    bad("another time of reception", put(challenge__received_at="2026-09-20T11:59:59.251Z"))
    bad("another command", put(mda__command_uuid="5D1C0F0A-2C26-4B55-9B0D-0C1A5A6B7C8D"))
    bad("another observation", put(security_info__observed_at="2026-09-20T11:59:48Z"))
    bad("one member more", put(challenge__note=""))
    bad("a part is missing", drop("/security_info"))
    bad("all but the result is missing", drop("/registration", "/challenge", "/security_info", "/mda", "/policy"))
    bad("another name of the policy", put(policy__id="device/2026-09-02"))
    bad("the seal of something else", put(ear=jws(claims(seal=sha256(b"something else").hex()))), drop("/log_entry_b64", "/tlog_proof"))


def policies():
    case("policy: none is none", {"policy": "absent"}, drop("/policy"))
    case("policy: named in a fragment", {"ear": "proved", "policy": "proved"}, put(ear=jws(claims(module={
        "ear_appraisal_policy_ids": [f"{ISSUER}/policies/device/2026-09-01#sha256-{b64url(sha256(POLICY.encode()))}"]}))))
    bad = lambda title, *edits: case("policy: " + title, {"policy": "failed"}, *edits)
    bad("another text", put(policy__text=POLICY + " "))
    bad("no text", drop("/policy/text"))
    bad("a text that is none", put(policy__text={"id": 1}))
    bad("the result names another", put(ear=jws(claims(policy="{}"))))
    bad("the result names none", put(ear=jws(claims(module={"ear_appraisal_policy_ids": []}))))
    bad("the hash is not the last part", put(ear=jws(claims(module={"ear_appraisal_policy_ids": [f"{ISSUER}/{sha256(POLICY.encode()).hex()}/x"]}))))
    bad("no result", drop("/ear"))


def judgements():
    def judged(title, standing, text=RULES, change=None, module=None, edits=(), **claims_too):
        known = {"policy": "proved", "judgement": standing, **claims_too}
        case("judgement: " + title, known, put(
            policy={"id": "strict", "text": text}, ear=jws(claims(change, module, policy=text)),
            security_info__fields__FDE_Enabled=True), *edits)

    info = "security_info__"
    hardware = {"attestd": {"trust_level": "hardware"}}
    other = put(mda=mda(transcript(OTHER_KEY, *minted(10_250))))
    judged("all that is demanded", "asserted")
    judged("a warning", "asserted", change={"ear_status": "warning"}, module={"ear_status": "warning", "ear_trustworthiness_vector": {"configuration": 36}})
    case("judgement: rules of another form", {"policy": "proved", "judgement": "absent"})
    judged("rules without a table", "absent", RULES.replace("[require]", "[demand]"))
    judged("rules with a span that is none", "absent", RULES.replace('usable_for = "24h"', 'usable_for = "long"'))
    judged("nothing good is said", "absent", change={"ear_status": "none"}, module={"ear_status": "none"})
    judged("what is bad is bad", "absent", change={"ear_status": "contraindicated"},
           module={"ear_status": "contraindicated", "ear_trustworthiness_vector": {"configuration": 96}}, edits=[put(**{info + "fields__FDE_Enabled": False})])
    judged("the result is over", "absent", change={"iat": NOW - 7200, "exp": NOW - 3600}, policy="failed", ear="failed")
    judged("FileVault off", "failed", edits=[put(**{info + "fields__FDE_Enabled": False})])
    judged("nothing of FileVault", "failed", edits=[drop("/security_info/fields/FDE_Enabled")])
    judged("FileVault off, and not demanded", "asserted", RULES.replace("filevault = true", "filevault = false"), edits=[put(**{info + "fields__FDE_Enabled": False})])
    sealed_system = RULES.replace("authenticated_root = false", "authenticated_root = true")
    judged("the sealed system is demanded", "failed", sealed_system)
    judged("the sealed system is shown", "asserted", sealed_system, edits=[put(**{info + "fields__AuthenticatedRootVolumeEnabled": True})])
    judged("reported in the second of the result", "asserted", edits=[put(**{info + "observed_at": "2026-09-20T12:00:00.999Z"})])
    judged("reported after the result", "failed", edits=[put(**{info + "observed_at": "2026-09-20T12:00:01Z"})])
    judged("reported at no time", "failed", edits=[drop("/security_info/observed_at")])
    hour = RULES.replace('fresh_for = "2h"\nusable_for = "24h"\nask_again = "48m"', 'fresh_for = "40m"\nusable_for = "60m"\nask_again = "30m"')
    judged("what was reported ends before the result", "failed", hour)
    judged("the result ends with what was reported", "asserted", hour, change={"exp": NOW + 3587})
    judged("SecurityInfo is not there", "asserted", edits=[drop("/security_info")])
    judged("SecurityInfo is off, and not demanded", "asserted", RULES.replace("security_info = true", "security_info = false"),
           edits=[put(**{info + "fields__FDE_Enabled": False})])
    short = [put(mda=mda(HOW, last=datetime(2026, 9, 20, 12, 30)))]
    judged("Apple's certificate ends before the result", "failed", edits=short)
    judged("Apple's certificate ends, and none is demanded", "asserted", RULES.replace("apple_chain = true", "apple_chain = false").replace("key_binding = true", "key_binding = false"), edits=short)
    judged("the chain is not shown", "asserted", module=hardware, edits=[put(mda__chain_sha256="0" * 64), drop("/mda/chain_b64")])
    judged("hardware, and the key is named", "asserted", module=hardware)
    judged("hardware, and another key is named", "failed", module=hardware, edits=[other], key_named="failed")
    judged("another key is named, and the level is not hardware", "asserted", edits=[other], key_named="failed")
    judged("hardware without a binding that is demanded", "asserted", RULES.replace("key_binding = true", "key_binding = false"), module=hardware,
           edits=[other], key_named="failed")


def logs():
    token, about = SEALED["ear"], SEALED["subject"]
    entry = lambda parts: put(**parts)
    bad = lambda title, *edits, **how: case("log: " + title, {"ear": "proved", "log": "failed"}, *edits, on="sealed", **how)
    ok = lambda title, *edits, **how: case("log: " + title, {"sealed": "proved", "log": "proved"}, *edits, on="sealed", **how)
    proof = SEALED["tlog_proof"]
    lines = proof.split("\n")
    case("log: none is none", {"sealed": "proved", "log": "absent"}, drop("/log_entry_b64", "/tlog_proof"), on="sealed")
    bad("an entry without a proof", drop("/tlog_proof"))
    bad("a proof without an entry", drop("/log_entry_b64"))
    case("log: no result", {"log": "failed"}, drop("/ear", "/policy"), on="sealed")
    for index, size in ((0, 1), (0, 2), (1, 2), (6, 7), (4, 5), (0, 8), (7, 8), (255, 256), (256, 257)):
        ok(f"entry {index} of {size}", entry(logged(token, about, index=index, size=size)))
    bad("an entry in a tree of none", put(tlog_proof=proof.replace("index 5\n" + "".join(f"{line}\n" for line in lines[2:6]),
                                                                   "index 0\n").replace("\n11\n", "\n0\n")))
    bad("the entry of another result", entry(logged(PLAIN["ear"], about)))
    bad("the entry of another subject", entry(logged(token, subject(OTHER_KEY))))
    bad("another entry", put(log_entry_b64=b64(compact({"v": 1}))))
    bad("another index", put(tlog_proof=proof.replace("index 5", "index 4")))
    bad("an index beyond the tree", put(tlog_proof=proof.replace("index 5", "index 16")))
    bad("an index with a zero in front", put(tlog_proof=proof.replace("index 5", "index 05")))
    bad("a hash too many", put(tlog_proof=proof.replace("index 5\n", f"index 5\n{lines[2]}\n")))
    bad("a hash too few", put(tlog_proof=proof.replace(lines[2] + "\n", "")))
    bad("a hash in another place", put(tlog_proof=proof.replace(f"{lines[2]}\n{lines[3]}", f"{lines[3]}\n{lines[2]}")))
    at_root = lines.index("11") + 1
    bad("another root", put(tlog_proof=proof.replace(lines[at_root], b64(sha256(b"root")))))
    bad("another size", put(tlog_proof=proof.replace("\n11\n", "\n12\n")))
    bad("another form", put(tlog_proof=proof.replace("proof@v1", "proof@v2")))
    bad("no end of the last line", put(tlog_proof=proof[:-1]))
    bad("a proof that is no text", put(tlog_proof=[]))
    ok("what is extra is nobody's business", put(tlog_proof=proof.replace("index 5", "extra AAAA\nindex 5")))
    bad("one witness where two are asked for", entry(logged(token, about, signers=WITNESSES[:1])))
    ok("one witness where one is asked for", entry(logged(token, about, signers=WITNESSES[:1])), trust=[put(witness_quorum=1)])
    bad("one witness twice", entry(logged(token, about, signers=("witness1.example", "witness1.example"))))
    bad("one witness trusted twice", entry(logged(token, about, signers=WITNESSES[:1])),
        trust=[put(witness_vkeys=[vkey("witness1.example", 4)] * 2)])
    bad("a stranger as witness", entry(logged(token, about, signers=("witness1.example", "witness3.example"))))
    ok("a stranger beside the witnesses", entry(logged(token, about, signers=(*WITNESSES, "witness3.example"))))
    late = logged(token, about)["tlog_proof"].split("\n")
    name_2, text_2 = late[-2].split(" ")[1:]
    data = bytearray(base64.b64decode(text_2))
    data[11] ^= 1
    bad("a witness's time is another", put(tlog_proof="\n".join([*late[:-2], f"\u2014 {name_2} {b64(data)}", ""])))
    one = logged(token, about, signers=WITNESSES[:1])
    signed = one["tlog_proof"].split("\n\n")[1] + "\n"
    bad("a witness that signed something else, beside one that suffices",
        entry({**one, "tlog_proof": one["tlog_proof"] + note("witness2.example", 4, "something else\n")}), trust=[put(witness_quorum=1)])
    bad("without the log's signature", put(tlog_proof="\n".join(line for line in lines if not line.startswith("\u2014 " + ORIGIN))))
    bad("the log's signature is another's", entry(logged(token, about, log="log.example")))
    bad("a checkpoint of another log", entry(logged(token, about, origin="log.example")))
    bad("a hyphen where a dash belongs", put(tlog_proof=proof.replace("\u2014 " + ORIGIN, "- " + ORIGIN)))
    for member in ("log_vkey", "witness_quorum", "witness_vkeys"):
        bad(f"no {member} is trusted", trust=[drop("/" + member)])
    bad("a log's key of another kind", trust=[put(log_vkey=vkey(ORIGIN, 4))])
    bad("a log that signs as a witness does", entry(logged(token, about, signers=(ORIGIN, *WITNESSES), log="nobody.example")),
        trust=[put(log_vkey=vkey(ORIGIN, 4))])
    bad("a witness that signs as a log does", entry({**one, "tlog_proof": one["tlog_proof"] + note("witness2.example", 1, signed)}),
        trust=[put(witness_vkeys=[vkey("witness1.example", 4), vkey("witness2.example", 1)])])
    bad("a log's key that contradicts itself", trust=[put(log_vkey=vkey(ORIGIN, 1).replace(vkey(ORIGIN, 1).split("+")[1], "00000000"))])
    ok("nobody is asked to witness", entry(logged(token, about, signers=())), trust=[put(witness_quorum=0)])


def leaves_of(size, index, raw):
    leaves = [sha256(b"\0", compact({"v": 1, "type": "filler", "n": n})) for n in range(size)]
    leaves[index] = sha256(b"\0", raw)
    return leaves


def in_log(raw, index=3, size=9, origin=ORIGIN, signers=WITNESSES):
    """An entry, and the proof that it is in the log."""
    leaves = leaves_of(size, index, raw)
    body = f"{origin}\n{size}\n{b64(tree(leaves))}\n"
    proof = "".join(b64(other) + "\n" for other in way(leaves, index))
    signatures = note(origin, 1, body) + "".join(note(signer, 4, body) for signer in signers)
    return {"log_entry_b64": b64(raw), "tlog_proof": f"c2sp.org/tlog-proof@v1\nindex {index}\n{proof}\n{body}\n{signatures}"}


def released(said=None, entry=None, **how):
    """The part `release`: what it says, and what its entry says."""
    about = {"version": "0.8.16", "platform": "macos-arm64", "binary_hash": "a1" * 32}
    logged_as = {"v": 1, "type": "release", "iat": NOW - 86400, "revoked": False, **about, **(entry or {})}
    return {**about, **(said or {}), **in_log(compact({name: value for name, value in logged_as.items() if value is not None}), **how)}


def releases():
    bad = lambda title, part, *edits, **how: case("release: " + title, {"ear": "proved", "release": "failed"}, put(release=part), *edits, **how)
    ok = lambda title, part, *edits, **how: case("release: " + title, {"registration": "proved", "status": "proved", "release": "proved"},
                                                 put(release=part), *edits, by={"release": "log"}, **how)
    case("release: none is none", {"release": "absent"})
    ok("of the program that the provider runs", released())
    ok("with more about it", {**released(), "url": "https://mdm.darkbloom.example/v1/releases/" + "a1" * 32})
    ok("the blob names the program, too", released(), put(registration=registration({"binaryHash": "a1" * 32})))
    ok("the blob names none, with an empty text", released(), put(registration=registration({"binaryHash": ""})))
    ok("nobody says which program runs", released({"binary_hash": "b2" * 32}, {"binary_hash": "b2" * 32}),
       put(challenge=challenge(status={"binary_hash": None})))
    ok("the only entry", released(index=0, size=1))
    ok("one witness where one is asked for", released(signers=WITNESSES[:1]), trust=[put(witness_quorum=1)])
    case("release: nobody answered", {"challenge": "absent", "release": "proved"}, put(release=released()), drop("/challenge"))
    case("release: nobody registered", {"registration": "absent", "release": "proved"}, put(release=released()), drop("/registration"))
    other = {"binary_hash": "b2" * 32}
    bad("of another program than that of the answer", released(other, other))
    bad("of another program than that of the blob", released(), put(registration=registration({"binaryHash": "c3" * 32})))
    bad("a blob that cannot be read", released(), put(registration={**registration(), "attestation_raw_b64": "AAAA"}))
    for member, value in (("version", "0.8.17"), ("platform", "linux"), ("binary_hash", "a2" * 32)):
        bad(f"the entry has another {member}", released(entry={member: value}))
        bad(f"another {member} is said", released({member: value}))
        bad(f"the entry has no {member}", released(entry={member: None}))
        bad(f"no {member} is said", {name: said for name, said in released().items() if name != member})
        bad(f"a {member} that is no text, on both sides", released({member: 7}, {member: 7}))
    bad("it was withdrawn", released(entry={"revoked": True}))
    bad("revoked is no flag", released(entry={"revoked": 0}))
    bad("revoked is not said", released(entry={"revoked": None}))
    bad("an entry of another kind", released(entry={"type": "policy"}))
    bad("an entry of another version", released(entry={"v": 2}))
    bad("a version that is true", released(entry={"v": True}))
    bad("an entry that is no object", {**released(), **in_log(b"[]")})
    bad("no proof", {name: said for name, said in released().items() if name != "tlog_proof"})
    bad("no entry", {name: said for name, said in released().items() if name != "log_entry_b64"})
    bad("another entry", {**released(), "log_entry_b64": b64(compact({"v": 1}))})
    bad("the proof of another", {**released(), "tlog_proof": released(entry={"version": "0.8.17"})["tlog_proof"]})
    bad("another log", released(origin="log.example"))
    bad("one witness where two are asked for", released(signers=WITNESSES[:1]))
    bad("no text", "released")
    bad("nothing", {})
    bad("no log is trusted", released(), trust=[drop("/log_vkey")])
    bad("no quorum is said", released(), trust=[drop("/witness_quorum")])


def dependents():
    """What rests on a claim that failed has failed with it; what does not has not."""
    others = {"subject": "proved", "registration": "proved", "challenge": "proved", "status": "proved", "security_info": "asserted"}
    case("together: the result is over", {**others, "apple": "proved", "key_named": "proved", "apple_posture": "proved", "ear": "failed",
                                          "sealed": "failed", "policy": "failed", "log": "proved"}, on="sealed", at="2026-09-20T13:00:00Z")
    case("together: another root is trusted", {**others, "apple": "failed", "key_named": "failed", "apple_posture": "failed", "ear": "proved",
                                               "sealed": "proved", "policy": "proved", "log": "proved"}, on="sealed",
         trust=[drop("/mda_root_sha256", "/mda_root_pem_file")])
    case("together: nothing but a key", {"subject": "asserted", "ear": "absent", "apple": "absent", "log": "absent"}, drop(
        "/subject_opening", "/registration", "/challenge", "/security_info", "/mda", "/policy", "/ear"))


def fixture():
    everything = dict.fromkeys(("subject", "registration", "challenge", "status", "apple", "key_named", "apple_posture", "ear", "log"),
                               "proved") | {"security_info": "asserted", "sealed": "absent", "policy": "absent"}
    case("fixture: as it is", everything, on="fixture", by={"apple": "custom"})
    case("fixture: the result is over", {"ear": "failed", "apple": "proved"}, on="fixture", at="2026-09-20T13:00:00Z")
    case("fixture: the chain is over", {"apple": "failed"}, on="fixture", at="2027-09-20T12:00:30Z")
    case("fixture: nothing is trusted", {"apple": "failed", "ear": "failed", "log": "failed", "registration": "proved"}, on="fixture",
         trust=[drop("/mda_root_sha256", "/mda_root_pem_file", "/jwks_file", "/issuer", "/log_vkey", "/witness_vkeys", "/witness_quorum")])
    case("fixture: the key in its other spelling", {"subject": "failed", "registration": "proved", "challenge": "proved", "key_named": "failed"},
         put(se_public_key=b64(b"\x04" + base64.b64decode(json.loads((HERE / "bundle.json").read_text())["se_public_key"]))), on="fixture")


def main():
    for fill in (fixture, forms, subjects, registrations, challenges, statuses, apples, infos, ears, seals, policies, judgements, logs, releases, dependents):
        fill()
    names = [made["name"] for made in CASES]
    assert len(set(names)) == len(names), "two cases of one name"
    write = lambda file, value: (HERE / file).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
    write("made.json", PLAIN)
    write("sealed.json", SEALED)
    write("made_trust.json", TRUST)
    body = base64.encodebytes(ROOT).decode()
    (HERE / "made_root.pem").write_text(f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n")
    rows = ",\n".join(json.dumps(made, ensure_ascii=False) for made in CASES)
    (HERE / "cases.json").write_text(f"[\n{rows}\n]\n")
    print(len(CASES), "cases")


if __name__ == "__main__":
    main()
