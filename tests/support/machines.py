"""Several machines on one: each has its own network, processes, mounts, host name, home, and an sshd.

A machine is a set of Linux namespaces with an address on a bridge that lies in a namespace too, so nothing
of it touches the network of the machine that runs the tests. Needs root and Debian's openssh-server,
openssh-client, rsync and iproute2.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[2]
NETWORK = "10.77.0"
CLIENT = f"{NETWORK}.254"
NEEDED = ("sshd", "ssh", "ssh-keygen", "rsync", "ip", "unshare", "nsenter", "setpriv", "make")

_INIT = """
set -e
mount --make-rprivate /
mount --bind {folder}/tmp-ray /tmp/ray
mount -t tmpfs -o size=8g tmpfs /dev/shm
for file in hosts passwd resolv.conf; do mount --bind {folder}/$file /etc/$file; done
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mkdir /run/sshd
hostname {name}
ip link set lo up
until ip -o address show | grep -q {address}/; do sleep 0.01; done
cd /
exec "$(command -v sshd)" -D -f {folder}/sshd_config -E {folder}/sshd.log
"""

_SSHD = """
ListenAddress {address}:22
HostKey {keys}/host
PidFile none
AuthorizedKeysFile {keys}/client.pub
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM no
StrictModes no
MaxStartups 100
Subsystem sftp internal-sftp
"""


def missing() -> str | None:
    """Why machines cannot be made here, None where they can."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    absent = [name for name in NEEDED if not shutil.which(name, path=path)]
    if absent:
        return f"needs {', '.join(absent)}"
    namespaces = ["unshare", "--net", "--mount", "--pid", "--uts", "--fork", "mount", "--make-rprivate", "/"]
    made = subprocess.run(namespaces, capture_output=True, text=True, check=False)
    return f"no namespaces for us here: {made.stderr.strip()}" if made.returncode else None


class Machine:
    """One machine that is on. `home` is the home of its root."""

    def __init__(self, network: Network, name: str, host: int) -> None:
        self.name = name
        self.address = f"{NETWORK}.{host}"
        self._network = network
        self._folder = network.folder / name
        self.home = self._folder / "home"
        self._furnish()
        self._process = _unshare(
            ["bash", "-c", _INIT.format(folder=self._folder, name=name, address=self.address)],
            self._folder / "init.log",
        )
        self.pid = _only_child(self._process.pid)
        network.connect(self)
        network.wait_for_port(self.address, 22)

    def _furnish(self) -> None:
        if self.home.exists():  # it was switched off before: its disk is as it was
            return
        self.home.mkdir(parents=True)
        Path("/tmp/ray").mkdir(exist_ok=True)  # where the machine's own is mounted
        (self._folder / "tmp-ray").mkdir()
        shutil.copy("/etc/skel/.bashrc", self.home)
        self._virtual_environment()
        passwd = Path("/etc/passwd").read_text().replace(":/root:", f":{self.home}:", 1)
        (self._folder / "passwd").write_text(passwd)
        (self._folder / "hosts").write_text(f"127.0.0.1 localhost\n{self.address} {self.name}\n")
        (self._folder / "resolv.conf").touch()
        sshd = _SSHD.format(address=self.address, keys=self._network.keys)
        (self._folder / "sshd_config").write_text(sshd)

    def _virtual_environment(self) -> None:
        """What `make` would install there, but for the package: that must arrive with the cluster's files."""
        environment = self.home / "kbopt" / ".venv"
        site = environment / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
        site.mkdir(parents=True)
        (environment / "bin").mkdir()
        python = environment / "bin" / "python"
        python.symlink_to(Path(sys.executable).resolve())
        (environment / "bin" / "python3").symlink_to("python")
        shutil.copy(Path(sys.prefix) / "pyvenv.cfg", environment)
        real = next(path for path in map(Path, sys.path) if path.name == "site-packages")
        (site / "machine.pth").write_text(f"{self.home / 'kbopt'}\n{real}\n")
        for name in ("ray", "kbopt", "pip"):
            body = (Path(sys.prefix) / "bin" / name).read_text().split("\n", 1)[1]
            script = environment / "bin" / name
            script.write_text(f"#!{python}\n{body}")
            script.chmod(0o755)
        (environment / ".installed").touch()

    def command(self, *arguments: str) -> list[str]:
        """`arguments` as a command line that runs on this machine, in its root's home."""
        inside = ["nsenter", "-t", str(self.pid), "-a", f"--wdns={self.home}"]
        clean = ["env", "-i", f"HOME={self.home}", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"]
        return [*inside, *clean, *arguments]

    def shell(self, text: str, *, timeout_s: float = 60) -> str:
        """What `text` prints in a login shell there, as over ssh. Raises where it fails."""
        return output(self.command("bash", "-lc", f". ~/.bashrc; {text}"), timeout_s=timeout_s)

    def processes(self, title: str) -> list[int]:
        """Processes of the machine whose command line begins with `title`, oldest first."""
        here = f"/proc/{self.pid}/ns/pid"
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes()
                if command.startswith(title.encode()) and (process / "ns/pid").samefile(here):
                    found.append(int(process.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
        return sorted(found)

    def power_off(self) -> None:
        """Everything on it dies at once; its disk stays."""
        self._process.kill()
        self._process.wait()
        self._network.ip("link", "delete", f"to-{self.name}")
        deadline = time.monotonic() + 10
        while Path(f"/proc/{self.pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.02)

    def unplug(self) -> None:
        """Cut its network."""
        self._network.ip("link", "set", f"to-{self.name}", "down")

    def plug_in(self) -> None:
        self._network.ip("link", "set", f"to-{self.name}", "up")


class Network:
    """A bridge that machines are connected to, and a client on it with keys for them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys = folder / "keys"
        self.client_home = folder / "client"
        self.machines: dict[str, Machine] = {}

    def __enter__(self) -> Self:
        self.keys.mkdir(parents=True)
        self.client_home.mkdir()
        for name in ("host", "client"):
            output(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.keys / name)])
        self._process = _unshare(["sleep", "infinity"], self.folder / "network.log")
        self._pid = _only_child(self._process.pid)
        for line in (
            "link set lo up",
            "link add bridge type bridge",
            f"addr add {CLIENT}/24 dev bridge",
            "link set bridge up",
        ):
            self.ip(*line.split())
        return self

    def __exit__(self, *_: object) -> None:
        for machine in self.machines.values():
            machine.power_off()
        self._process.kill()
        self._process.wait()

    def ip(self, *arguments: str) -> None:
        """`ip` in the namespace of the bridge."""
        output(["nsenter", "-t", str(self._pid), "-n", "ip", *arguments])

    def switch_on(self, name: str, host: int) -> Machine:
        """A machine with its network; one of the same name that was on before has its old disk."""
        self.machines[name] = Machine(self, name, host)
        return self.machines[name]

    def connect(self, machine: Machine) -> None:
        inside = ["nsenter", "-t", str(machine.pid), "-n", "ip"]
        link = f"to-{machine.name}"
        self.ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(machine.pid))
        self.ip("link", "set", link, "master", "bridge", "up")
        output([*inside, "addr", "add", f"{machine.address}/24", "dev", "eth0"])
        output([*inside, "link", "set", "eth0", "up"])
        output([*inside, "route", "add", "default", "via", CLIENT])

    def client(self, *arguments: str, **environment: str) -> list[str]:
        """`arguments` as a command line of the client, whose home has no key but the cluster's."""
        path = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
        clean = {
            "HOME": str(self.client_home),
            "PATH": path,
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            **environment,
        }
        pairs = [f"{name}={value}" for name, value in clean.items()]
        return ["nsenter", "-t", str(self._pid), "-n", "env", "-i", *pairs, *arguments]

    def wait_for_port(self, address: str, port: int, *, timeout_s: float = 30) -> None:
        probe = (
            "import socket, sys; s = socket.socket(); s.settimeout(1); "
            "sys.exit(s.connect_ex((sys.argv[1], int(sys.argv[2]))))"
        )
        deadline = time.monotonic() + timeout_s
        while subprocess.run(self.client("python3", "-c", probe, address, str(port)), check=False).returncode:
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing listens at {address}:{port} after {timeout_s:g} s")
            time.sleep(0.05)


def output(command: list[str], *, timeout_s: float = 60, **options: object) -> str:
    """What `command` prints on stdout. Raises with both streams where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\nexit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def _unshare(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """`command` as the first process of new namespaces; it dies with the tests, and all in them with it."""
    flags = ["--net", "--mount", "--pid", "--uts", "--fork", "--kill-child"]
    with log.open("wb") as stream:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", *flags, *command],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )


def _only_child(pid: int) -> int:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children:
            return int(children[0])
        time.sleep(0.01)
    raise TimeoutError(f"process {pid} has no child")
