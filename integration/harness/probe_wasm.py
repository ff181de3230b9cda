"""Small plugins that stand for other code in the proxy: one calls what it is not allowed to, one reads shared data, one
ends its virtual machine."""

from pathlib import Path

from wasmtime import wat2wasm

# Calls that lead out of the virtual machine, or to what the filter does not need, and their number of parameters.
FOREIGN_CALLS = {
    "proxy_http_call": 10,
    "proxy_call_foreign_function": 6,
    "proxy_set_header_map_pairs": 3,
    "proxy_get_log_level": 1,
    "proxy_close_stream": 1,
}
_REFUSED = 10
"""`InternalFailure`, which Envoy answers calls with that are not allowed."""

_FRAME = """
(module
  (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
  {imports}
  (memory (export "memory") 2)
  {data}
  (func (export "proxy_abi_version_0_2_1"))
  ;; Room for one value, which the next one takes over.
  (func (export "malloc") (param i32) (result i32) (i32.const 65536))
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_configure") (param i32 i32) (result i32) {configure} (i32.const 1))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) {headers} (i32.const 0)))
"""


def caller(path: Path) -> Path:
    """Writes a plugin that makes each of `FOREIGN_CALLS` when it is configured, and logs `NAME is refused` or not."""
    imports, data, calls = [], [], []
    for number, (name, parameters) in enumerate(FOREIGN_CALLS.items()):
        place, refused, made = 128 * number, f"{name} is refused", f"{name} is allowed"
        imports.append(f'(import "env" "{name}" (func ${name} (param {"i32 " * parameters}) (result i32)))')
        data.append(f'(data (i32.const {place}) "{refused}") (data (i32.const {place + 64}) "{made}")')
        call = f"(call ${name} {'(i32.const 0) ' * parameters})"
        calls.append(
            f"(if (i32.eq {call} (i32.const {_REFUSED}))"
            f" (then (drop (call $log (i32.const 2) (i32.const {place}) (i32.const {len(refused)}))))"
            f" (else (drop (call $log (i32.const 2) (i32.const {place + 64}) (i32.const {len(made)})))))"
        )
    text = _FRAME.format(imports="\n".join(imports), data="\n".join(data), configure="\n".join(calls), headers="")
    return _compiled(path, text)


def reader(path: Path, key: str) -> Path:
    """Writes a plugin that logs the value of `key` in its shared data with each request."""
    read = f"""
      (if (i32.eqz (call $get (i32.const 0) (i32.const {len(key)}) (i32.const 512) (i32.const 516) (i32.const 520)))
        (then (drop (call $log (i32.const 2) (i32.load (i32.const 512)) (i32.load (i32.const 516))))))
    """
    get = '(import "env" "proxy_get_shared_data" (func $get (param i32 i32 i32 i32 i32) (result i32)))'
    return _compiled(path, _FRAME.format(imports=get, data=f'(data (i32.const 0) "{key}")', configure="", headers=read))


def mortal(path: Path) -> Path:
    """Writes a plugin that lets every request pass, and traps at a path of four characters."""
    value = '(import "env" "proxy_get_header_map_value" (func $value (param i32 i32 i32 i32 i32) (result i32)))'
    trap = """
      (drop (call $value (i32.const 0) (i32.const 0) (i32.const 5) (i32.const 512) (i32.const 516)))
      (if (i32.eq (i32.load (i32.const 516)) (i32.const 4)) (then unreachable))
    """
    text = _FRAME.format(imports=value, data='(data (i32.const 0) ":path")', configure="", headers=trap)
    return _compiled(path, text)


def _compiled(path: Path, text: str) -> Path:
    path.write_bytes(wat2wasm(text))
    return path
