"""Bytes and texts. Each has one spelling: another one is refused, even where it would mean the same."""
import base64, hashlib, itertools, json, re
from datetime import datetime

def need(holds, why):
    if not holds:
        raise ValueError(why)
def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()
def b64(text, size=None):
    data = base64.b64decode(text, validate=True)
    need(base64.b64encode(data).decode() == text, "not the one spelling of this base64")
    need(size in (None, len(data)), f"{len(data)} bytes where {size} belong")
    return data
def b64url(text, size=None):
    need(re.fullmatch("[A-Za-z0-9_-]*", text), "no base64url")
    return b64(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), size)
def moment(text):
    need(re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,3})?Z", text), "no time in UTC")
    return datetime.fromisoformat(text)
def canonical(value):
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")).encode()
def distinct(pairs):
    return need(len(dict(pairs)) == len(pairs), "a name stands twice") or dict(pairs)
def read_json(data):
    """An object that reads the same to everyone: UTF-8, no name twice, no number or text that is none."""
    value = json.loads(data.decode("utf-8"), object_pairs_hook=distinct)
    text = canonical(value)  # refuses NaN, numbers beyond all bounds, and half of a surrogate pair
    steps = ((byte in b"[{") - (byte in b"]}") for byte in re.sub(rb'"(?:[^"\\]|\\.)*"', b"", text))
    if max(itertools.accumulate(steps), default=0) > 127:
        raise RecursionError("nested deeper than 127")
    need(isinstance(value, dict), "no object")
    return value
