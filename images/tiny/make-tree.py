"""Writes a v86 9p tree (fs.json version 3 and content-addressed files) for one busybox.

usage: make-tree.py BUSYBOX APPLETS FOLDER; a node is [name, size, mtime, mode, uid, gid, target | children | sha256].
"""
import hashlib
import json
import pathlib
import stat
import sys

MTIME = 1577836800  # 2020-01-01: the same in every build

FOLDERS = {
    "bin": 0o755, "dev": 0o755, "etc": 0o755, "home": 0o755, "lib": 0o755, "mnt": 0o755, "opt": 0o755, "proc": 0o555,
    "root": 0o700, "run": 0o755, "sbin": 0o755, "srv": 0o755, "sys": 0o555, "tmp": 0o1777, "usr": 0o755, "usr/bin": 0o755,
    "usr/lib": 0o755, "usr/local": 0o755, "usr/local/bin": 0o755, "usr/local/sbin": 0o755, "usr/sbin": 0o755,
    "usr/share": 0o755, "var": 0o755, "var/cache": 0o755, "var/lib": 0o755, "var/log": 0o755, "var/tmp": 0o1777,
}
TEXTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    "etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "etc/hostname": "sandbox\n",
    "etc/hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
    "etc/resolv.conf": "nameserver 10.0.2.3\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
    "etc/os-release": 'ID=sandbox86-tiny\nNAME="sandbox86 tiny"\nPRETTY_NAME="sandbox86 tiny (BusyBox)"\n',
    "etc/profile": "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n",
    "etc/shells": "/bin/sh\n/bin/ash\n",
}
# Not made as links: they would stop or confuse the machine.
LEFT_OUT = {"linuxrc", "sbin/init"}


def main():
    busybox, applets, folder = sys.argv[1:]
    files = pathlib.Path(folder, "files")
    files.mkdir(parents=True)
    tree = {}
    size = 0

    def node(path, mode, length, content):
        *parents, name = path.split("/")
        children = tree
        for parent in parents:
            children = children[parent][6]
        children[name] = [name, length, MTIME, mode, 0, 0, content]

    def add_file(path, data, mode):
        nonlocal size
        digest = hashlib.sha256(data).hexdigest()
        (files / digest).write_bytes(data)
        node(path, stat.S_IFREG | mode, len(data), digest)
        size += len(data)

    for path, mode in sorted(FOLDERS.items()):
        node(path, stat.S_IFDIR | mode, 0, {})
    add_file("bin/busybox", pathlib.Path(busybox).read_bytes(), 0o755)
    for path in pathlib.Path(applets).read_text().split():
        if path not in LEFT_OUT and path != "bin/busybox":
            node(path, stat.S_IFLNK | 0o777, len("/bin/busybox"), "/bin/busybox")
    for path, text in TEXTS.items():
        add_file(path, text.encode(), 0o644)

    def listed(children):
        nodes = []
        for _, value in sorted(children.items()):
            *head, content = value
            nodes.append(head + [listed(content) if isinstance(content, dict) else content])
        return nodes

    document = {"fsroot": listed(tree), "version": 3, "size": size}
    pathlib.Path(folder, "fs.json").write_text(json.dumps(document, separators=(",", ":")) + "\n")


main()
