// EXPORT: what changed since the boot, as an OCI layer: a tar stream (POSIX.1-2001 pax) in which `.wh.NAME` stands for a
// removed file and `.wh..wh..opq` for a folder of which nothing below is left. A child walks the overlay's upper folder and
// writes the stream into a pipe; the agent passes it on as credit allows.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>
#include "agent.h"

enum { BLOCK = 512, DEPTH_MAX = 200, FRAMES_PER_TURN = 8, NAME_FIELD = 100 };

int upper_folder = -1;

static pid_t walker;
static uint32_t walker_call;
static int walker_status = -1;

// ---- The child: blocking code, one buffered stream.

static FILE *tar;

// A file with several names: the first one is stored, the others link to it.
struct linked {
	dev_t device;
	ino_t inode;
	char *path;
	struct linked *next;
};
static struct linked *links;

static void give_up(const char *what, const char *path)
{
	complain("cannot export: %s %s: %m", what, path);
	_exit(1);
}

static void put(const void *bytes, size_t length)
{
	if (fwrite(bytes, 1, length, tar) != length)
		give_up("write", "");
}

static void pad(uint64_t length)
{
	static const char zeros[BLOCK];
	put(zeros, (BLOCK - length % BLOCK) % BLOCK);
}

// ustar, POSIX.1-1988: name(100) mode(8) uid(8) gid(8) size(12) mtime(12) chksum(8) type(1) linkname(100) magic(8)
// uname(32) gname(32) devmajor(8) devminor(8) prefix(155), all numbers octal text.
static void put_header(const char *name, char type, const char *target, const struct stat *info, uint64_t size)
{
	char block[BLOCK] = { 0 };
	uint64_t mtime = info->st_mtime < 0 ? 0 : info->st_mtime;
	memcpy(block, name, strnlen(name, NAME_FIELD));
	sprintf(block + 100, "%07o", (unsigned)info->st_mode & 07777);
	sprintf(block + 108, "%07o", (unsigned)info->st_uid & 07777777);
	sprintf(block + 116, "%07o", (unsigned)info->st_gid & 07777777);
	sprintf(block + 124, "%011llo", (unsigned long long)size);
	sprintf(block + 136, "%011llo", (unsigned long long)mtime);
	memset(block + 148, ' ', 8);
	block[156] = type;
	memcpy(block + 157, target, strnlen(target, NAME_FIELD));
	memcpy(block + 257, "ustar\00000", 8);
	if (type == '3' || type == '4') {
		sprintf(block + 329, "%07o", (unsigned)major(info->st_rdev));
		sprintf(block + 337, "%07o", (unsigned)minor(info->st_rdev));
	}
	unsigned sum = 0;
	for (int i = 0; i < BLOCK; i++)
		sum += (unsigned char)block[i];
	sprintf(block + 148, "%06o", sum);
	put(block, BLOCK);
}

// A pax record is "LENGTH KEY=VALUE\n", where LENGTH counts itself.
static size_t pax_record(char *at, const char *key, const char *value)
{
	size_t rest = strlen(key) + strlen(value) + 3, length = rest + 1;
	while (length != rest + (size_t)snprintf(NULL, 0, "%zu", length))
		length = rest + snprintf(NULL, 0, "%zu", length);
	return sprintf(at, "%zu %s=%s\n", length, key, value);
}

static void put_entry(const char *name, char type, const char *target, const struct stat *info, uint64_t size)
{
	static char records[2 * PATH_MAX + 64];
	size_t length = 0;
	if (strlen(name) > NAME_FIELD)
		length += pax_record(records + length, "path", name);
	if (strlen(target) > NAME_FIELD)
		length += pax_record(records + length, "linkpath", target);
	if (length > 0) {
		put_header("pax", 'x', "", info, length);
		put(records, length);
		pad(length);
	}
	put_header(name, type, target, info, size);
}

static const char *earlier_name(const struct stat *info, const char *name)
{
	for (struct linked *each = links; each; each = each->next)
		if (each->inode == info->st_ino && each->device == info->st_dev)
			return each->path;
	struct linked *first = malloc(sizeof *first);
	if (!first)
		give_up("remember", name);
	*first = (struct linked){ info->st_dev, info->st_ino, strdup(name), links };
	links = first;
	return NULL;
}

static void put_file(int folder, const char *entry, const char *name, const struct stat *info)
{
	const char *earlier = info->st_nlink > 1 ? earlier_name(info, name) : NULL;
	if (earlier) {
		put_entry(name, '1', earlier, info, 0);
		return;
	}
	int fd = openat(folder, entry, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		give_up("open", name);
	put_entry(name, '0', "", info, info->st_size);
	static char buffer[65536];
	uint64_t left = info->st_size;
	while (left > 0) {
		ssize_t length = read(fd, buffer, left < sizeof buffer ? left : sizeof buffer);
		if (length <= 0)
			give_up("read", name);
		put(buffer, length);
		left -= length;
	}
	close(fd);
	pad(info->st_size);
}

static bool has_attribute(int folder, const char *attribute)
{
	char value[8];
	return fgetxattr(folder, attribute, value, sizeof value) > 0 || errno == ERANGE;
}

static void put_folder(int folder, const char *path, bool merged, int depth);

static void put_subfolder(int folder, const char *entry, const char *name, const struct stat *info, bool merged, int depth)
{
	put_entry(name, '5', "", info, 0);
	int inside = openat(folder, entry, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (inside < 0)
		give_up("open", name);
	// A folder that was renamed holds only its changes here; the whole of it is seen through the overlay.
	bool renamed = !merged && has_attribute(inside, "trusted.overlay.redirect");
	if (!merged && (renamed || has_attribute(inside, "trusted.overlay.opaque"))) {
		char marker[PATH_MAX];
		if (snprintf(marker, sizeof marker, "%s/.wh..wh..opq", name) >= (int)sizeof marker)
			give_up("name too long", name);
		put_entry(marker, '0', "", &(struct stat){ .st_mode = 0644 }, 0);
	}
	if (renamed) {
		char visible[PATH_MAX + 1];
		snprintf(visible, sizeof visible, "/%s", name);
		close(inside);
		inside = open(visible, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (inside < 0)
			give_up("open", visible);
	}
	put_folder(inside, name, merged || renamed, depth + 1);
}

static void put_one(int folder, const char *path, const char *entry, bool merged, int depth)
{
	char name[PATH_MAX], target[PATH_MAX];
	if (snprintf(name, sizeof name, "%s%s%s", path, *path ? "/" : "", entry) >= (int)sizeof name)
		give_up("name too long", entry);
	struct stat info;
	if (fstatat(folder, entry, &info, AT_SYMLINK_NOFOLLOW) < 0)
		give_up("look at", name);
	switch (info.st_mode & S_IFMT) {
	case S_IFDIR:
		put_subfolder(folder, entry, name, &info, merged, depth);
		return;
	case S_IFREG:
		put_file(folder, entry, name, &info);
		return;
	case S_IFLNK: {
		ssize_t length = readlinkat(folder, entry, target, sizeof target - 1);
		if (length < 0)
			give_up("read link", name);
		target[length] = 0;
		put_entry(name, '2', target, &info, 0);
		return;
	}
	case S_IFIFO:
		put_entry(name, '6', "", &info, 0);
		return;
	case S_IFBLK:
		put_entry(name, '4', "", &info, 0);
		return;
	case S_IFCHR:
		if (!merged && info.st_rdev == 0) {
			if (snprintf(name, sizeof name, "%s%s.wh.%s", path, *path ? "/" : "", entry) >= (int)sizeof name)
				give_up("name too long", entry);
			put_entry(name, '0', "", &(struct stat){ .st_mode = 0644 }, 0);
			return;
		}
		put_entry(name, '3', "", &info, 0);
	}
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

// Takes the descriptor over. Entries come in the order of their names, so that the same changes make the same stream.
static void put_folder(int folder, const char *path, bool merged, int depth)
{
	if (depth > DEPTH_MAX) {
		errno = ELOOP;
		give_up("descend into", path);
	}
	DIR *list = fdopendir(folder);
	if (!list)
		give_up("list", path);
	char **entries = NULL;
	size_t count = 0, room = 0;
	struct dirent *each;
	while ((each = readdir(list))) {
		if (strcmp(each->d_name, ".") == 0 || strcmp(each->d_name, "..") == 0)
			continue;
		if (count == room && !(entries = realloc(entries, (room = room ? 2 * room : 64) * sizeof *entries)))
			give_up("list", path);
		if (!(entries[count++] = strdup(each->d_name)))
			give_up("list", path);
	}
	qsort(entries, count, sizeof *entries, by_name);
	for (size_t i = 0; i < count; i++) {
		put_one(dirfd(list), path, entries[i], merged, depth);
		free(entries[i]);
	}
	free(entries);
	closedir(list);
}

static void walk(int into)
{
	static const char end[2 * BLOCK];
	process_join();
	tar = fdopen(into, "w");
	int top = openat(upper_folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (!tar || top < 0)
		give_up("open", "/");
	put_folder(top, "", false, 0);
	put(end, sizeof end);
	_exit(fclose(tar) == 0 ? 0 : 1);
}

// ---- The agent's side.

void export_start(struct call *call)
{
	int pipes[2] = { -1, -1 };
	call->input_complete = true;
	if (upper_folder < 0)
		channel_fail(call->id, EOPNOTSUPP, "the root has no overlay whose changes could be exported");
	else if (walker)
		channel_fail(call->id, EBUSY, "already exporting");
	else if (pipe2(pipes, O_CLOEXEC) < 0 || (walker = fork()) < 0) {
		channel_fail(call->id, errno, "%s", strerror(errno));
		walker = 0;
	} else {
		if (walker == 0)
			walk(pipes[1]);
		close(pipes[1]);
		walker_call = call->id;
		walker_status = -1;
		call->fd = pipes[0];
		return;
	}
	close(pipes[0]);
	close(pipes[1]);
	call_end(call);
}

static void finish_if_over(struct call *call)
{
	if (call->fd >= 0 || walker)
		return;
	if (walker_status == 0) {
		memset(channel_payload(), 0, 4);
		channel_send(DONE, call->id, 4);
	} else
		channel_fail(call->id, EIO, "the changes could not be read; the console tells why");
	call_end(call);
}

void export_pollfds(struct pollfd *set, int *used)
{
	for (int i = 0; i < CALLS_MAX; i++)
		if (calls[i].id && calls[i].op == EXPORT && calls[i].fd >= 0 && credit > 0)
			set[(*used)++] = (struct pollfd){ .fd = calls[i].fd, .events = POLLIN };
}

void export_pump(void)
{
	for (int i = 0; i < CALLS_MAX; i++) {
		struct call *call = &calls[i];
		if (!call->id || call->op != EXPORT)
			continue;
		for (int n = 0; n < FRAMES_PER_TURN && call->fd >= 0 && credit > 0; n++) {
			struct pollfd ready = { .fd = call->fd, .events = POLLIN };
			if (poll(&ready, 1, 0) <= 0)
				break;
			ssize_t length = read(call->fd, channel_payload(), credit < FRAME_PAYLOAD_MAX ? credit : FRAME_PAYLOAD_MAX);
			if (length <= 0) {
				close(call->fd);
				call->fd = -1;
				break;
			}
			credit -= length;
			channel_send(OUT, call->id, length);
		}
		finish_if_over(call);
	}
}

void export_ended(pid_t pid, int status)
{
	if (walker && pid == walker) {
		walker = 0;
		walker_status = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
	}
}

void export_cancel(struct call *call)
{
	if (walker && walker_call == call->id)
		kill(walker, SIGKILL);
}
