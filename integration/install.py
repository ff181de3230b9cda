"""Runs `make demo`, `make test` and `make check` on a bare Debian 12, as docs/building.md promises.

    make test-install                             # as root: it makes a system with debootstrap and changes root into it
    python3 -m integration.install --only root    # or user

The system has make, git, ca-certificates and debootstrap's minbase. Each user, root and one with sudo, gets a fresh
copy of it, an empty HOME and a clone of the commit that is checked out here. rustup's hosts are unreachable. All
targets run twice, the second time in a network namespace without a network, so that run can download nothing.

The system gets this machine's settings for reaching registries: apt's mirrors of Debian 12 and proxies, pip's and
cargo's configuration, proxies in the environment, the trusted CAs. It gets no secrets: neither apt's auth.conf nor
cargo's credentials.

Prints each run's duration, its processor time, the peak of its processes' total memory, and the disk in use after it.
The whole output of each run is in target/test-install. At the end, everything is removed except the copy of the bare
system under .toolchain/install.
"""

import argparse
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from integration.stack.process import REPOSITORY

BASE = REPOSITORY / ".toolchain" / "install" / "debian-12.tar"
LOGS = REPOSITORY / "target" / "test-install"
RELEASE = "bookworm"
PACKAGES = "make,git,ca-certificates"
# apt's sources if this machine has another release.
DEBIAN = [
    f"deb http://deb.debian.org/debian {RELEASE} main",
    f"deb http://deb.debian.org/debian {RELEASE}-updates main",
    f"deb http://deb.debian.org/debian-security {RELEASE}-security main",
]
RUSTUP_HOSTS = ["static.rust-lang.org", "sh.rustup.rs", "rustup.rs", "forge.rust-lang.org"]
# An address of TEST-NET-1, which nobody has: a connection to it hangs.
NOWHERE = "192.0.2.1"
CERTIFICATES = Path("etc/ssl/certs/ca-certificates.crt")
CARRIED_ENVIRONMENT = re.compile(
    r"(?i:(https?|all|no)_proxy)|PIP_(INDEX_URL|EXTRA_INDEX_URL|TRUSTED_HOST|CERT|PROXY|DEFAULT_TIMEOUT|RETRIES)"
    r"|CARGO_(HTTP|NET|SOURCE|REGISTR(Y|IES))_\w+(?<!TOKEN)"
)
CARRIED_APT_SETTING = re.compile(r"Acquire::(https?::|Check-|Retries|ForceIPv)")
# Enters the system and runs a command there. The mounts and processes end with the namespaces.
ENTER = r"""
set -eu
root=$1
shift
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir -p "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$root/dev/pts"
ln -sf pts/ptmx "$root/dev/ptmx"
ln -sfn /proc/self/fd "$root/dev/fd"
ln -sf /proc/self/fd/0 "$root/dev/stdin"
ln -sf /proc/self/fd/1 "$root/dev/stdout"
ln -sf /proc/self/fd/2 "$root/dev/stderr"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
ip link set lo up
# Without exec: the first process of a namespace is the one that orphans go to, and a shell reaps them.
chroot "$@"
"""


@dataclass(frozen=True)
class User:
    """The user that runs make, and the directories. Paths may contain blanks."""

    name: str
    home: str
    clone: str


USERS = {
    "root": User("root", "/root", "/srv/sigv4-filter"),
    "user": User("dev", "/home/dev", "/srv/sigv4 filter"),
}


@dataclass(frozen=True)
class Measured:
    """The cost of one run."""

    seconds: float
    processor: float
    memory: int
    disk: int

    def __str__(self) -> str:
        sizes = f"{self.memory / 1e9:5.2f} GB of memory  {self.disk / 1e9:5.2f} GB of disk"
        return f"{in_minutes(self.seconds)}, {in_minutes(self.processor)} of processor  {sizes}"


def in_minutes(seconds: float) -> str:
    return f"{int(seconds) // 60:3} min {int(seconds) % 60:2} s"


class System:
    """A copy of the bare system, and its user."""

    def __init__(self, root: Path, user: User) -> None:
        self.root = root
        self.user = user
        subprocess.run(["tar", "--extract", "--file", BASE, "--directory", root, "--numeric-owner"], check=True)
        carry_settings(root)
        self.empty = disk_used(root)

    def prepare(self) -> None:
        """Creates the user with sudo, and the clone."""
        if self.user.name != "root":
            script = (
                "apt-get update && apt-get install --yes --no-install-recommends sudo && apt-get clean"
                " && rm -rf /var/lib/apt/lists/*"
                f" && useradd --home-dir {self.user.home} --shell /bin/bash {self.user.name}"
                f" && install -d -o {self.user.name} {self.user.home} /srv"
                f" && echo '{self.user.name} ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/{self.user.name}"
            )
            self.run_or_exit("prepare", ["sh", "-c", script], USERS["root"])
        bundle = self.root / "project.bundle"
        shutil.copy(LOGS / bundle.name, bundle)
        self.run_or_exit("clone", ["git", "clone", "--quiet", "/project.bundle", self.user.clone])
        bundle.unlink()
        home = self.root / self.user.home[1:]
        for entry in home.iterdir():
            entry.unlink()
        self.empty = disk_used(self.root)

    def run_or_exit(self, name: str, command: list[str], user: User | None = None) -> None:
        log = LOGS / f"{name}.log"
        if self.start(command, log, network=True, user=user).wait():
            sys.exit(f"{name} failed:\n{tail(log)}")

    def start(self, command: list[str], log: Path, network: bool, user: User | None = None) -> subprocess.Popen:
        user = user or self.user
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--ipc", "--uts"]
        environment = {
            "HOME": user.home, "USER": user.name, "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **carried_environment(),
        }  # fmt: skip
        with log.open("wb") as output:
            return subprocess.Popen(
                [*unshare, *([] if network else ["--net"]), "sh", "-c", ENTER, "enter", self.root,
                 f"--userspec={user.name}:{user.name}", self.root, *command],
                env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def measure(self, name: str, target: str, network: bool) -> None:
        """Runs a target of make from another directory, and prints its cost."""
        log = LOGS / f"{re.sub('[^a-z]+', '-', name)}.log"
        begin, used = time.monotonic(), processor_time()
        process = self.start(["make", "-C", self.user.clone, target], log, network)
        with peak_memory(process) as memory:
            try:
                status = process.wait()
            except BaseException:
                process.kill()
                raise
        seconds, processor = time.monotonic() - begin, processor_time() - used
        measured = Measured(seconds, processor, memory[0], disk_used(self.root) - self.empty)
        print(f"{name:25} {measured}   load {os.getloadavg()[1]:.1f}", flush=True)
        if status:
            sys.exit(f"make {target} failed with {status}; {log} ends with:\n{tail(log)}")
        for line in log.read_text(errors="replace").splitlines():
            if re.search(r" … [0-9.]+ s$|^== .* s$|^That is all|^requirements: ", line):
                print(f"    {line}", flush=True)

    def print_disk(self) -> None:
        clone = self.root / self.user.clone[1:]
        parts = {"target": clone / "target", ".toolchain": clone / ".toolchain", ".venv": clone / ".venv",
                 "HOME": self.root / self.user.home[1:], "/var and /usr": None}  # fmt: skip
        used = {name: disk_used(path) for name, path in parts.items() if path}
        used["/var and /usr"] = disk_used(self.root) - self.empty - sum(used.values())
        print("    disk:", ", ".join(f"{name} {size / 1e9:.2f} GB" for name, size in used.items()), flush=True)


@contextmanager
def peak_memory(process: subprocess.Popen):
    """Samples the total private memory of a PID namespace's processes; yields the peak."""
    peak = [0]
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(0.5):
            peak[0] = max(peak[0], memory_of_namespace(process.pid))

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield peak
    finally:
        ended.set()
        sampler.join()


def processor_time() -> float:
    """Returns the processor time of this process's ended children, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def memory_of_namespace(unshared: int) -> int:
    try:
        namespace = os.readlink(f"/proc/{unshared}/ns/pid_for_children")
    except OSError:
        return 0
    total = 0
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(directory / "ns" / "pid") == namespace:
                total += int(re.search(r"^RssAnon:\s*(\d+)", (directory / "status").read_text(), re.MULTILINE)[1]) << 10
        except (OSError, TypeError):  # it ended, or has no memory any more
            continue
    return total


def carried_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if CARRIED_ENVIRONMENT.fullmatch(name)}


def carry_settings(root: Path) -> None:
    """Copies the settings for reaching this machine's registries into the system."""
    (root / "etc/apt/sources.list").write_text("\n".join(apt_sources()) + "\n")
    settings = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout.splitlines()
    carried = [line for line in settings if CARRIED_APT_SETTING.match(line)]
    carried += [
        f'Acquire::{name.removesuffix("_proxy")}::Proxy "{value}";'
        for name, value in os.environ.items() if name in ("http_proxy", "https_proxy")
    ]  # fmt: skip
    (root / "etc/apt/apt.conf.d/90machine").write_text("".join(f"{line}\n" for line in carried))
    home = Path.home()
    cargo_home = Path(os.environ.get("CARGO_HOME", home / ".cargo"))
    copy_first([home / ".config/pip/pip.conf", home / ".pip/pip.conf", Path("/etc/pip.conf")], root / "etc/pip.conf")
    # Cargo looks for its configuration in all directories above the project.
    copy_first([cargo_home / "config.toml", cargo_home / "config"], root / ".cargo/config.toml")
    copy_first([Path("/") / CERTIFICATES], root / CERTIFICATES)
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    blocked = "".join(f"{NOWHERE} {host}\n" for host in RUSTUP_HOSTS)
    (root / "etc/hosts").write_text(Path("/etc/hosts").read_text() + blocked)


def copy_first(candidates: list[Path], to: Path) -> None:
    for path in candidates:
        if path.is_file():
            to.parent.mkdir(exist_ok=True)
            shutil.copy(path, to)
            to.chmod(0o644)
            return


def apt_sources() -> list[str]:
    """Returns this machine's mirrors of Debian 12."""
    form = "deb $(REPO_URI) $(RELEASE) main|$(ORIGIN)|$(COMPONENT)"
    command = ["apt-get", "indextargets", "--format", form, "Created-By: Packages"]
    targets = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    lines = [source for source, origin, component in (line.split("|") for line in targets)
             if origin == "Debian" and component == "main" and source.split()[2].startswith(RELEASE)]  # fmt: skip
    return lines if len(lines) >= len(DEBIAN) else DEBIAN


def make_base() -> None:
    """Creates the bare system, once for all runs."""
    if BASE.exists():
        return
    print(f"making a bare {RELEASE} with debootstrap: {BASE.relative_to(REPOSITORY)}", flush=True)
    if not shutil.which("debootstrap"):
        subprocess.run("apt-get update && apt-get install --yes --no-install-recommends debootstrap", shell=True,
                       stdout=sys.stderr, check=True)  # fmt: skip
    BASE.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=LOGS) as work:
        mirror = apt_sources()[0].split()[1]
        with (LOGS / "debootstrap.log").open("wb") as log:
            command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", RELEASE, f"{work}/root", mirror]
            if subprocess.run(command, stdout=log, stderr=log, check=False).returncode:
                sys.exit(f"debootstrap failed:\n{tail(Path(log.name))}")
        # Neither package lists nor packages: a fresh system has none. The name appears when the file is complete.
        partial = BASE.with_suffix(".partial")
        subprocess.run(["tar", "--create", "--file", partial, "--directory", f"{work}/root", "--numeric-owner",
                        "--exclude=./var/lib/apt/lists/*", "--exclude=./var/cache/apt/*", "--exclude=./dev/*", "."],
                       check=True)  # fmt: skip
        partial.rename(BASE)


def disk_used(path: Path) -> int:
    if not path.exists():
        return 0
    # A process may end while it is counted.
    done = subprocess.run(
        ["du", "-sx", "-B1", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False
    )
    return int(done.stdout.split()[0])


def tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-60:])


def run_as(kind: str) -> None:
    user = USERS[kind]
    with tempfile.TemporaryDirectory(prefix=f"{kind}-", dir=LOGS) as work:
        os.chmod(work, 0o755)
        system = System(Path(work), user)
        system.prepare()
        print(f"as {user.name}, in {user.clone!r}, HOME={user.home} (empty)", flush=True)
        for run, network in (("first", True), ("second, no network", False)):
            for target in ("demo", "test", "check"):
                system.measure(f"{kind}: {target}, {run}", target, network)
            if network:
                system.print_disk()


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs make demo and make test on a bare Debian 12.")
    parser.add_argument("--only", choices=USERS, help="as whom, if not as both")
    only = parser.parse_args().only
    if os.geteuid() != 0:
        sys.exit("test-install: making a system and changing root into it takes root; run it as root")
    for program in ("apt-get", "git", "ip", "unshare"):
        if not shutil.which(program):
            sys.exit(f"test-install: {program} is not here; install it (Debian: iproute2 has ip, util-linux unshare)")
    # So that the files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("test-install: terminated"))
    LOGS.mkdir(parents=True, exist_ok=True)
    commit = subprocess.run(
        ["git", "log", "-1", "--format=%h %s"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    print(f"{commit.stdout.strip()}, on {os.cpu_count()} processors", flush=True)
    bundle = LOGS / "project.bundle"
    subprocess.run(["git", "bundle", "create", "--quiet", bundle, "HEAD"], cwd=REPOSITORY, check=True)
    make_base()
    for kind in [only] if only else USERS:
        run_as(kind)
    print("test-install: all passed", flush=True)


if __name__ == "__main__":
    main()
