// READ and WRITE: whole files without a shell in between.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "agent.h"

enum { LINKS_MAX = 40, MODE_KEEP = -1 };

static void fail(struct call *call, int error, const char *what)
{
	channel_fail(call->id, error, "%s", what ? what : strerror(error));
	call_end(call);
}

static const char *kind(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR: return "is a directory";
	case S_IFCHR: return "is a character device, not a regular file";
	case S_IFBLK: return "is a block device, not a regular file";
	case S_IFIFO: return "is a FIFO, not a regular file";
	case S_IFSOCK: return "is a socket, not a regular file";
	default: return "is not a regular file";
	}
}

// Copies a path out of a frame and makes it absolute, or relative to a name of the shell's folder. → 0 or an errno.
static int take_path(char *path, size_t size, const uint8_t *text, size_t length)
{
	if (length == 0)
		return ENOENT;
	if (memchr(text, 0, length))
		return EINVAL;
	if (length > PATH_LENGTH_MAX)
		return ENAMETOOLONG;
	int prefix = 0;
	if (text[0] != '/' && (prefix = shell_folder(path, size)) < 0)
		return ENOENT;
	if (prefix + length >= size)
		return ENAMETOOLONG;
	memcpy(path + prefix, text, length);
	path[prefix + length] = 0;
	return 0;
}

void read_open(struct call *call, const uint8_t *arguments, size_t length)
{
	static char path[2 * PATH_MAX];
	uint64_t offset;
	if (length < 16) {
		fail(call, EINVAL, NULL);
		return;
	}
	memcpy(&offset, arguments, 8);
	memcpy(&call->limit, arguments + 8, 8);
	struct stat about;
	int error = take_path(path, sizeof path, arguments + 16, length - 16);
	if (error || stat(path, &about) < 0) {
		fail(call, error ? error : errno, NULL);
		return;
	}
	if (!S_ISREG(about.st_mode)) {
		fail(call, S_ISDIR(about.st_mode) ? EISDIR : EINVAL, kind(about.st_mode));
		return;
	}
	call->fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (call->fd < 0 || fstat(call->fd, &about) < 0 || !S_ISREG(about.st_mode) ||
	    (offset > 0 && lseek(call->fd, offset, SEEK_SET) < 0)) {
		fail(call, call->fd < 0 ? errno : EINVAL, NULL);
		return;
	}
	call->size = about.st_size;
	call->mode = about.st_mode & 07777;
	call->input_complete = true;
}

bool read_pump(struct call *call)
{
	uint64_t left = call->limit - call->done;
	size_t wanted = left < FRAME_PAYLOAD_MAX ? left : FRAME_PAYLOAD_MAX;
	if (wanted > 0 && credit == 0)
		return false;
	if (wanted > credit)
		wanted = credit;
	ssize_t length = wanted ? read(call->fd, channel_payload(), wanted) : 0;
	if (length > 0) {
		credit -= length;
		call->done += length;
		channel_send(OUT, call->id, length);
		return true;
	}
	if (length < 0 && errno != EAGAIN) {
		fail(call, errno, NULL);
		return true;
	}
	uint8_t *at = channel_payload();
	memcpy(at, &call->size, 8);
	memcpy(at + 8, &call->done, 8);
	memcpy(at + 16, &call->mode, 4);
	channel_send(DONE, call->id, 20);
	call_end(call);
	return true;
}

// Makes every folder on the way to the last name. → 0 or an errno.
static int make_parents(char *path, size_t from)
{
	for (char *slash = strchr(path + from + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		int made = mkdir(path, 0755);
		int error = errno;
		*slash = '/';
		if (made < 0 && error != EEXIST && error != EROFS)
			return error;
	}
	return 0;
}

// Follows links at the last name, so that a link stays a link and its target is written. → 0 or an errno.
static int follow_links(char *path, size_t size)
{
	static char target[PATH_MAX];
	for (int links = 0; links < LINKS_MAX; links++) {
		ssize_t length = readlink(path, target, sizeof target - 1);
		if (length < 0)
			return errno == EINVAL || errno == ENOENT ? 0 : errno;
		target[length] = 0;
		char *slash = strrchr(path, '/');
		size_t prefix = target[0] == '/' ? 0 : (size_t)(slash + 1 - path);
		if (prefix + length >= size)
			return ENAMETOOLONG;
		memcpy(path + prefix, target, length + 1);
	}
	return ELOOP;
}

void write_open(struct call *call, const uint8_t *arguments, size_t length)
{
	static char path[2 * PATH_MAX];
	static unsigned serial;
	uint32_t append;
	if (length < 8) {
		fail(call, EINVAL, NULL);
		return;
	}
	memcpy(&call->mode, arguments, 4);
	memcpy(&append, arguments + 4, 4);
	call->append = append != 0;
	int error = take_path(path, sizeof path, arguments + 8, length - 8);
	if (!error)
		error = make_parents(path, arguments[8] == '/' ? 0 : strlen(path) - (length - 8));
	if (!error)
		error = follow_links(path, sizeof path);
	if (error) {
		fail(call, error, NULL);
		return;
	}
	char *slash = strrchr(path, '/');
	const char *name = slash + 1;
	if (!*name || !strcmp(name, ".") || !strcmp(name, "..")) {
		fail(call, EISDIR, kind(S_IFDIR));
		return;
	}
	if (strlen(name) >= sizeof call->name) {
		fail(call, ENAMETOOLONG, NULL);
		return;
	}
	strcpy(call->name, name);
	*(slash == path ? slash + 1 : slash) = 0;
	call->folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (call->folder < 0) {
		fail(call, errno, NULL);
		return;
	}
	struct stat about;
	bool exists = fstatat(call->folder, call->name, &about, AT_SYMLINK_NOFOLLOW) == 0;
	if (exists && !S_ISREG(about.st_mode)) {
		fail(call, S_ISDIR(about.st_mode) ? EISDIR : EINVAL, kind(about.st_mode));
		return;
	}
	if (call->append) {
		call->fd = openat(call->folder, call->name, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_CLOEXEC, 0644);
		call->size = exists ? about.st_size : 0;
	} else {
		snprintf(call->temporary, sizeof call->temporary, ".%.220s.sandbox86-%u", call->name, ++serial);
		call->fd = openat(call->folder, call->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	}
	if (call->fd < 0) {
		error = errno;
		call->temporary[0] = 0;
		fail(call, error, NULL);
		return;
	}
	// Owner first: changing it takes set-user-id bits away.
	bool keep = call->mode == (uint32_t)MODE_KEEP;
	if (!call->append && exists && fchown(call->fd, about.st_uid, about.st_gid) < 0)
		error = errno;
	if (!(call->append && keep)) {
		mode_t mode = !keep ? call->mode & 07777 : exists ? about.st_mode & 07777 : 0644;
		if (fchmod(call->fd, mode) < 0)
			error = errno;
	}
	if (error) {
		write_abandon(call);
		fail(call, error, NULL);
	}
}

void write_data(struct call *call, const uint8_t *data, size_t length)
{
	while (length > 0) {
		ssize_t part = write(call->fd, data, length);
		if (part <= 0) {
			int error = part < 0 ? errno : ENOSPC;
			write_abandon(call);
			fail(call, error, NULL);
			return;
		}
		call->done += part;
		data += part;
		length -= part;
	}
}

void write_end(struct call *call)
{
	struct stat about;
	if ((root_is_host && fsync(call->fd) < 0) || fstat(call->fd, &about) < 0 ||
	    (!call->append && renameat(call->folder, call->temporary, call->folder, call->name) < 0)) {
		int error = errno;
		write_abandon(call);
		fail(call, error, NULL);
		return;
	}
	char link[32];
	snprintf(link, sizeof link, "/proc/self/fd/%d", call->folder);
	uint8_t *at = channel_payload();
	memcpy(at, &(uint64_t){ about.st_size }, 8);
	ssize_t length = readlink(link, (char *)at + 8, PATH_MAX);
	if (length < 0)
		length = 0;
	if (length != 1)  // everywhere but in "/" itself
		at[8 + length++] = '/';
	size_t name = strlen(call->name);
	memcpy(at + 8 + length, call->name, name);
	channel_send(DONE, call->id, 8 + length + name);
	call_end(call);
}

// All or nothing: what was written so far goes away again.
void write_abandon(struct call *call)
{
	if (call->temporary[0])
		unlinkat(call->folder, call->temporary, 0);
	else if (call->append && call->fd >= 0 && ftruncate(call->fd, call->size) < 0) {}
}
