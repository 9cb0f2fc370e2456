// From the initramfs to a root: the host's 9p tree below, RAM above, and the file systems that every Linux program expects.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/route.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "agent.h"

// Files live in RAM. Together with /dev/shm and /run they get three quarters of it, so that programs keep a quarter: what
// lies in a tmpfs no OOM killer can free.
#define UPPER_OPTIONS "size=60%,nr_inodes=0,mode=0755"
#define HOST_OPTIONS "trans=virtio,version=9p2000.L,cache=loose,ignoreqv,noxattr,msize=131072"
#define OVERLAY_OPTIONS "lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work,redirect_dir=on,index=off,xino=off,volatile"

bool root_is_host;

static bool mount_at(const char *source, const char *target, const char *type, unsigned long flags, const char *options)
{
	mkdir(target, 0755);
	if (mount(source, target, type, flags, options) == 0 || errno == EBUSY)
		return true;
	complain("cannot mount %s at %s: %m", type, target);
	return false;
}

static void mount_host(const char *target)
{
	mkdir(target, 0755);
	for (int attempt = 0; attempt < 200; attempt++) {
		if (mount("host9p", target, "9p", MS_NOATIME, HOST_OPTIONS) == 0)
			return;
		if (errno != ENOENT && errno != ENODEV)
			break;
		nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL);
	}
	complain("cannot mount the host's tree: %m");
}

static void mount_root(void)
{
	char line[4096];
	read_text("/proc/cmdline", line, sizeof line);
	root_is_host = strstr(line, "sandbox86.rootrw") != NULL;
	if (root_is_host) {
		mount_host("/root");
		return;
	}
	mount_host("/lower");
	mount_at("tmpfs", "/upper", "tmpfs", MS_NOATIME, UPPER_OPTIONS);
	mkdir("/upper/data", 0755);
	mkdir("/upper/work", 0755);
	// The low numbers are the shell's.
	int upper = open("/upper/data", O_PATH | O_DIRECTORY | O_CLOEXEC);
	upper_folder = fcntl(upper, F_DUPFD_CLOEXEC, 32);
	close(upper);
	mkdir("/root", 0755);
	if (mount("overlay", "/root", "overlay", MS_NOATIME, OVERLAY_OPTIONS) < 0)
		complain("cannot mount the overlay: %m");
}

static void switch_root(void)
{
	static const char *const kept[] = { "/dev", "/proc", "/sys" };
	for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
		char target[32];
		snprintf(target, sizeof target, "/root%s", kept[i]);
		mkdir(target, 0755);
		if (mount(kept[i], target, NULL, MS_MOVE, NULL) < 0)
			complain("cannot move %s: %m", kept[i]);
	}
	unlink("/init");
	if (chdir("/root") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
		complain("cannot enter the root: %m");
}

static void set_address(int fd, struct ifreq *request, unsigned long which, const char *address)
{
	struct sockaddr_in *in = (struct sockaddr_in *)&request->ifr_addr;
	memset(in, 0, sizeof *in);
	in->sin_family = AF_INET;
	in->sin_addr.s_addr = inet_addr(address);
	if (ioctl(fd, which, request) < 0)
		complain("cannot set address %s: %m", address);
}

static bool set_up(int fd, const char *name)
{
	struct ifreq request = { 0 };
	strcpy(request.ifr_name, name);
	if (ioctl(fd, SIOCGIFFLAGS, &request) < 0)
		return false;
	request.ifr_flags |= IFF_UP;
	return ioctl(fd, SIOCSIFFLAGS, &request) == 0;
}

// The relay's network has one machine in it and constant addresses, so no DHCP client is needed in the userland.
static void start_network(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	set_up(fd, "lo");
	if (set_up(fd, "eth0")) {
		struct ifreq request = { 0 };
		strcpy(request.ifr_name, "eth0");
		set_address(fd, &request, SIOCSIFADDR, "10.0.2.15");
		set_address(fd, &request, SIOCSIFNETMASK, "255.255.255.0");
		struct rtentry route = { .rt_flags = RTF_UP | RTF_GATEWAY };
		struct sockaddr_in *gateway = (struct sockaddr_in *)&route.rt_gateway;
		gateway->sin_family = AF_INET;
		gateway->sin_addr.s_addr = inet_addr("10.0.2.2");
		((struct sockaddr_in *)&route.rt_dst)->sin_family = AF_INET;
		((struct sockaddr_in *)&route.rt_genmask)->sin_family = AF_INET;
		if (ioctl(fd, SIOCADDRT, &route) < 0 && errno != EEXIST)
			complain("cannot set the default route: %m");
	}
	close(fd);
	struct stat about;
	if (stat("/etc/resolv.conf", &about) < 0 || about.st_size == 0)
		write_text("/etc/resolv.conf", "nameserver 10.0.2.3\n");
}

static void set_limit(int resource, rlim_t soft, rlim_t hard)
{
	setrlimit(resource, &(struct rlimit){ soft, hard });
}

void boot(void)
{
	mount_at("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755");
	mount_at("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	mount_at("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	mount_root();
	switch_root();

	mount_at("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666");
	mount_at("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=10%");
	mount_at("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=5%");
	mkdir("/run/lock", 01777);
	chmod("/run/lock", 01777);
	if (mkdir("/tmp", 01777) == 0)
		chmod("/tmp", 01777);
	mkdir("/root", 0700);
	mount_at("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	symlink("/proc/self/fd", "/dev/fd");
	symlink("/proc/self/fd/0", "/dev/stdin");
	symlink("/proc/self/fd/1", "/dev/stdout");
	symlink("/proc/self/fd/2", "/dev/stderr");

	sethostname("sandbox", 7);
	start_network();
	write_text("/proc/sys/kernel/printk", "1 4 1 7");
	write_text("/proc/sys/kernel/panic", "0");
	// Else up to an eighth of the RAM may lie in the free lists of the one CPU, neither free nor zeroed by COMPACT.
	write_text("/proc/sys/vm/percpu_pagelist_high_fraction", "256");
	write_text("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
	set_limit(RLIMIT_NOFILE, 1024, 65536);
	set_limit(RLIMIT_CORE, 0, RLIM_INFINITY);
	set_limit(RLIMIT_STACK, 8 << 20, RLIM_INFINITY);
}
