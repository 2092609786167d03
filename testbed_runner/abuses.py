"""Tries of a program in a container against its machine, as small programs.  Pure.

The canary of a site tries them before the site takes work, and a test tries them beside others'
containers.  docs/security.md has the table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SECONDS = 5
"""Time that each may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abuse:
    """A try: its name, what it must not achieve, and its program in Python.

    text: calls `won(…)` with what it achieved; an error means that it was refused.  It finds
    `targets`, `libc` and `syscall` besides the standard library's `os`, `socket`, `Path`.
    """

    name: str
    aim: str
    text: str


RUNNER = """
import ctypes, json, os, resource, select, signal, socket, struct, subprocess, sys, time
from pathlib import Path
targets, tries, seconds = json.loads(os.environ["ABUSES"])
libc = ctypes.CDLL(None, use_errno=True)
def syscall(number, *arguments):
    answer = libc.syscall(ctypes.c_long(number), *arguments)
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer
class Won(BaseException):
    pass
def won(what):
    raise Won(str(what))
def reach(*address, family=socket.AF_INET):
    with socket.socket(family) as connection:
        connection.settimeout(1)
        connection.connect(address[0] if len(address) == 1 else address)
        won(f"connected to {address}")
def open_each(paths, mode):
    for path in paths:
        try:
            with open(path, mode) as file:
                if "b" in mode and "r" in mode:
                    file.read(1)
                won(f"opened {path} with {mode}")
        except OSError as exc:
            error = exc
    raise error
def attempt(text, pipe):
    try:
        exec(text, globals())
        said = [False, "nothing happened"]
    except Won as exc:
        said = [True, str(exc)]
    except BaseException as exc:
        said = [False, f"{type(exc).__name__}: {exc}"]
    os.write(pipe, json.dumps([said[0], said[1][:300]]).encode())
for name, text in tries:
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        attempt(text, theirs)
        os._exit(0)
    os.close(theirs)
    ready, _, _ = select.select([ours], [], [], seconds)
    answer = os.read(ours, 4096) if ready else b""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(ours)
    succeeded, detail = json.loads(answer) if answer else (False, "ended without a word")
    print(json.dumps([name, succeeded, detail]), flush=True)
"""
"""Runs tries one after the other, each in a process of its own, and prints a line of JSON for each:
its name, whether it achieved what it must not, and what or why not.  The variable ABUSES has
targets, tries and seconds."""

NOWHERE: Mapping[str, object] = {"listeners": [], "processes": [], "files": [], "abstract": []}
"""The targets of tries where there is nothing else to be tried at."""

ABUSES: Sequence[Abuse] = (
    # --- the network
    Abuse(
        name="internet",
        aim="reach a server on the internet",
        text="reach('1.1.1.1', 53)",
    ),
    Abuse(
        name="internet by IPv6",
        aim="reach a server on the internet",
        text="reach('2606:4700:4700::1111', 53, family=socket.AF_INET6)",
    ),
    Abuse(
        name="metadata of a cloud",
        aim="read the machine's identity at its cloud",
        text="reach('169.254.169.254', 80)",
    ),
    Abuse(
        name="private networks",
        aim="reach other machines of the site",
        text="for host in ('10.0.0.1', '172.17.0.1', '192.168.0.1'):\n"
        "    try: reach(host, 22)\n"
        "    except OSError as exc: last = exc\n"
        "raise last",
    ),
    Abuse(
        name="listeners of the machine",
        aim="reach databases, metrics, engine and other services of the machine",
        text="last = ConnectionError('no target')\n"
        "for host, port in targets['listeners']:\n"
        "    try: reach(host, port)\n"
        "    except OSError as exc: last = exc\n"
        "raise last",
    ),
    Abuse(
        name="names",
        aim="send data out in questions for names",
        text="won(socket.getaddrinfo('example.org', 80))",
    ),
    Abuse(
        name="broadcast",
        aim="be heard on the machine's networks",
        text="with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:\n"
        "    out.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)\n"
        "    out.sendto(b'x', ('255.255.255.255', 9)); won('sent')",
    ),
    Abuse(
        name="other interfaces",
        aim="find an interface besides its loopback",
        text="names = [name for _, name in socket.if_nameindex()]\n"
        "own = {'lo', 'tunl0', 'sit0', 'ip6tnl0', 'gre0', 'gretap0', 'erspan0', 'ip_vti0',"
        " 'ip6_vti0', 'ip6gre0'}\n"
        "if set(names) - own: won(names)",
    ),
    Abuse(
        name="raw sockets",
        aim="forge packets",
        text="socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP); won('opened')",
    ),
    Abuse(
        name="packet sockets",
        aim="listen to the traffic of others",
        text="socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300); won('opened')",
    ),
    Abuse(
        name="configure the network",
        aim="give itself an address or a route",
        text="import fcntl\n"
        "with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:\n"
        "    fcntl.ioctl(control, 0x8914, struct.pack('16sh14x', b'lo', 0x43)); won('set flags')",
    ),
    Abuse(
        name="abstract sockets",
        aim="reach services of the machine that listen without a file",
        text="last = ConnectionError('no target')\n"
        "for name in targets['abstract']:\n"
        "    try: reach('\\0' + name, family=socket.AF_UNIX)\n"
        "    except OSError as exc: last = exc\n"
        "raise last",
    ),
    Abuse(
        name="engine's socket",
        aim="give the container engine orders",
        text="paths = ('/var/run/docker.sock', '/run/docker.sock',"
        " '/run/containerd/containerd.sock')\n"
        "for path in (*paths, *targets.get('sockets', ())):\n"
        "    try: reach(path, family=socket.AF_UNIX)\n"
        "    except OSError as exc: last = exc\n"
        "raise last",
    ),
    # --- files
    Abuse(
        name="write to its image",
        aim="change its program, or fill the machine's disk",
        text="open_each(['/x', '/etc/passwd', '/etc/hosts', '/etc/resolv.conf', '/usr/local/x',"
        " '/run/x', '/var/x', '/dev/x'], 'ab')",
    ),
    Abuse(
        name="write to its secrets",
        aim="change a file in memory of the machine, or remove one",
        text="open_each(['/run/testbed/x', '/run/testbed/credential'], 'ab')",
    ),
    Abuse(
        name="secrets of others",
        aim="read credentials of other deployments",
        text="paths = [path for root in ('/run', '/dev/shm') for path in Path(root).rglob('*')\n"
        "         if path.is_file() and Path('/run/testbed') not in path.parents]\n"
        "if paths: won(paths)\n"
        "open_each(targets['files'] or ['/run/testbed/../../dev/shm/x'], 'rb')",
    ),
    Abuse(
        name="files of the machine",
        aim="read files outside its image",
        text="roots = ('', '/proc/1/root', '/proc/self/root/../..', '/proc/self/cwd/../..',"
        " '/proc/thread-self/root/../../..', '/proc/1/cwd/../..')\n"
        "open_each([root + file for root in roots for file in targets['files']]"
        " or ['/proc/1/root/root/x'], 'rb')",
    ),
    Abuse(
        name="files by handle",
        aim="open files of the machine past all mounts",
        text="handle = struct.pack('IiQ', 8, 1, 2)\n"
        "syscall(304, os.open('/', os.O_RDONLY), handle, os.O_RDONLY); won('opened the root')",
    ),
    Abuse(
        name="links out of its disk",
        aim="have the machine follow a link in its folder",
        text="os.rename('/tmp', '/tmp.old'); os.symlink('/etc', '/tmp'); won('replaced /tmp')",
    ),
    Abuse(
        name="execute from its disk",
        aim="run what it has written",
        text="last = None\n"
        "for folder in ('/tmp', '/dev/shm'):\n"
        "    path = Path(folder, 'program')\n"
        "    try:\n"
        "        path.write_text(f'#!{sys.executable}\\n')\n"
        "        path.chmod(0o755)\n"
        "        if os.access(path, os.X_OK): subprocess.run([path]); won(f'ran {path}')\n"
        "        raise OSError('not executable')\n"
        "    except OSError as exc: last = exc\n"
        "raise last",
    ),
    Abuse(
        name="settings of the kernel",
        aim="change the machine through /proc/sys",
        text="open_each(['/proc/sys/kernel/core_pattern', '/proc/sys/kernel/modprobe',"
        " '/proc/sys/vm/overcommit_memory', '/proc/sys/fs/file-max', '/proc/sysrq-trigger',"
        " '/proc/sys/kernel/hostname', '/proc/sys/net/ipv4/ip_forward'], 'r+')",
    ),
    Abuse(
        name="devices in /sys",
        aim="change devices and drivers of the machine",
        text="for folder, _, files in os.walk('/sys'):\n"
        "    for name in files[:50]:\n"
        "        if os.access(Path(folder, name), os.W_OK): won(f'may write {folder}/{name}')\n"
        "raise PermissionError('nothing there may be written')",
    ),
    Abuse(
        name="memory of the kernel",
        aim="read what the kernel has in memory",
        text="open_each(['/proc/kcore', '/dev/mem', '/dev/kmem', '/dev/kmsg', '/proc/kmsg'], 'rb')",
    ),
    Abuse(
        name="log of the kernel",
        aim="read what the kernel logs of others",
        text="buffer = ctypes.create_string_buffer(100)\n"
        "if syscall(103, 3, buffer, 100) > 0: won(buffer.value)",
    ),
    Abuse(
        name="device nodes",
        aim="open a disk, a terminal or a tunnel of the machine",
        text="names = ('vda', 'sda', 'nvme0n1', 'loop0', 'kvm', 'fuse', 'net/tun', 'tty0')\n"
        "open_each([f'/dev/{name}' for name in names], 'rb')",
    ),
    Abuse(
        name="make a device node",
        aim="open a disk of the machine",
        text="os.mknod('/tmp/disk', 0o060666, os.makedev(254, 0)); won('made one')",
    ),
    # --- mounts, namespaces, control groups
    Abuse(
        name="mount",
        aim="put another file system in place of what it sees",
        text="if libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0: won('mounted')\n"
        "raise OSError(ctypes.get_errno(), 'mount')",
    ),
    Abuse(
        name="mount by the new calls",
        aim="mount past filters of the old call",
        text="syscall(430, b'tmpfs', 0); won('opened a file system')",
    ),
    Abuse(
        name="make its root writable",
        aim="change its image",
        text="if libc.mount(None, b'/', None, 0x20 | 0x1000, None) == 0: won('remounted')\n"
        "raise OSError(ctypes.get_errno(), 'mount')",
    ),
    Abuse(
        name="remove a mask",
        aim="see what the engine hides below /proc",
        text="if libc.umount2(b'/proc/kcore', 2) == 0: won('unmounted')\n"
        "raise OSError(ctypes.get_errno(), 'umount')",
    ),
    Abuse(
        name="change its root",
        aim="leave its folder",
        text="os.chroot('/tmp'); won('changed')",
    ),
    Abuse(
        name="own user namespace",
        aim="be root with all capabilities in a namespace of its own",
        text="if libc.unshare(0x10000000) == 0: won('unshared')\n"
        "raise OSError(ctypes.get_errno(), 'unshare')",
    ),
    Abuse(
        name="own mount namespace",
        aim="mount where others do not see it",
        text="if libc.unshare(0x00020000) == 0: won('unshared')\n"
        "raise OSError(ctypes.get_errno(), 'unshare')",
    ),
    Abuse(
        name="namespace of another",
        aim="enter the network of the machine",
        text="for pid in ('1', *map(str, targets['processes'])):\n"
        "    try:\n"
        "        space = os.open(f'/proc/{pid}/ns/net', os.O_RDONLY)\n"
        "        if libc.setns(space, 0) == 0: won(f'entered that of {pid}')\n"
        "        last = OSError(ctypes.get_errno(), 'setns')\n"
        "    except OSError as exc: last = exc\n"
        "raise last",
    ),
    Abuse(
        name="its own limits",
        aim="take more memory, processes or files than it may",
        text="hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "groups = '/sys/fs/cgroup'\n"
        "paths = [f'{groups}/memory/memory.limit_in_bytes', f'{groups}/pids/pids.max',"
        " f'{groups}/memory.max', f'{groups}/pids.max', f'{groups}/cgroup.procs']\n"
        "try: open_each(paths, 'r+')\n"
        "except OSError: pass\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (hard * 2, hard * 2)); won('raised')",
    ),
    Abuse(
        name="escape by a control group",
        aim="have the kernel run a program of it on the machine",
        text="os.makedirs('/tmp/groups', exist_ok=True)\n"
        "if libc.mount(b'none', b'/tmp/groups', b'cgroup', 0, b'rdma') == 0: won('mounted')\n"
        "open_each(['/sys/fs/cgroup/memory/release_agent', '/sys/fs/cgroup/rdma/release_agent',"
        " '/sys/fs/cgroup/release_agent', '/sys/kernel/uevent_helper'], 'r+')",
    ),
    Abuse(
        name="never be ended for memory",
        aim="let the kernel end others in its place",
        text="Path('/proc/self/oom_score_adj').write_text('-1000'); won('written')",
    ),
    # --- who it is
    Abuse(
        name="become root",
        aim="be user 0 or in group 0",
        text="for change in (os.setuid, os.setgid, lambda number: os.setgroups([number])):\n"
        "    try: change(0); won(change)\n"
        "    except OSError as exc: last = exc\n"
        "raise last",
    ),
    Abuse(
        name="root by a file of its image",
        aim="be user 0 by a program that its image marks so",
        text="path = Path('/usr/local/bin/become-root')\n"
        "said = subprocess.run([path, '-c', 'import os; print(os.geteuid())'],"
        " capture_output=True, text=True, check=True).stdout.strip()\n"
        "if said == '0': won(said)\n"
        "raise PermissionError(f'it runs as {said}')",
    ),
    Abuse(
        name="processes of others",
        aim="see, signal or read processes outside its container",
        text="for pid in targets['processes']:\n"
        "    if Path(f'/proc/{pid}/status').exists(): won(f'sees {pid}')\n"
        "    try: os.kill(pid, 0); won(f'may signal {pid}')\n"
        "    except OSError as exc: last = exc\n"
        "raise ProcessLookupError(3, 'no such process')",
    ),
    Abuse(
        name="higher priority",
        aim="take the processor before others do",
        text="try: os.nice(-10); won('is nicer to itself')\n"
        "except OSError: pass\n"
        "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)); won('real time')",
    ),
    Abuse(
        name="dumps of memory",
        aim="fill a disk with dumps",
        text="resource.setrlimit(resource.RLIMIT_CORE, (2**30, 2**30)); won('raised')",
    ),
    # --- calls of the kernel
    Abuse(
        name="keys of the kernel",
        aim="read or keep keys that the kernel shares between containers",
        text="number = syscall(248, b'user', b'testbed', b'x', 1, ctypes.c_long(-4)); won(number)",
    ),
    Abuse(
        name="programs in the kernel",
        aim="load a program into the kernel",
        text="class Map(ctypes.Structure):\n"
        "    _fields_ = [(n, ctypes.c_uint32) for n in 'abcde'] + [('rest', ctypes.c_char * 108)]\n"
        "won(syscall(321, 0, ctypes.byref(Map(2, 4, 4, 1, 0)), 128))",
    ),
    Abuse(
        name="counters of the processor",
        aim="spy on others through the processor's counters",
        text="event = ctypes.create_string_buffer(struct.pack('IIQ', 1, 112, 0), 112)\n"
        "won(syscall(298, event, 0, -1, -1, 0))",
    ),
    Abuse(
        name="rings of calls",
        aim="use io_uring, through which filters of calls do not see",
        text="won(syscall(425, 4, ctypes.create_string_buffer(120)))",
    ),
    Abuse(
        name="page faults in user space",
        aim="hold the kernel still in the middle of a call",
        text="won(syscall(323, 0))",
    ),
    Abuse(
        name="another kernel",
        aim="start another kernel",
        text="syscall(246, 0, 0, None, 0); won('loaded')",
    ),
    Abuse(
        name="module of the kernel",
        aim="load a driver",
        text="syscall(175, b'x', 1, b''); won('loaded')",
    ),
    Abuse(
        name="restart the machine",
        aim="restart or halt the machine",
        text="syscall(169, 0xfee1dead, 672274793, 0x89abcdef, None); won('allowed')",
    ),
    Abuse(
        name="set the clock",
        aim="change the time of the machine, and with it of all samples",
        text="time.clock_settime(time.CLOCK_REALTIME, time.time()); won('set')",
    ),
    Abuse(
        name="rename the machine",
        aim="change the machine's name",
        text="socket.sethostname(socket.gethostname()); won('renamed')",
    ),
    Abuse(
        name="swap and accounting",
        aim="switch on swap, or accounting of all processes",
        text="for number in (167, 163):\n"
        "    try: syscall(number, b'/tmp/x', 0); won(number)\n"
        "    except OSError as exc:\n"
        "        if exc.errno not in (1, 38): won(f'{number}: {exc}')\n"
        "raise PermissionError('refused')",
    ),
    Abuse(
        name="ports of the processor",
        aim="speak with devices directly",
        text="syscall(172, 3); won('allowed')",
    ),
    Abuse(
        name="the hypervisor",
        aim="reach the machine below a virtual machine, past all networks",
        text="with socket.socket(40, socket.SOCK_STREAM) as connection:\n"
        "    connection.settimeout(1)\n"
        "    won('opened')",
    ),
)
