/* Preloaded into a node: makes its writes and syncs hang or fail as a control file says.
 *
 * The file that DISK_FAULT_CONTROL names holds one line, "ACTION CALL PATH":
 *   ACTION  hang: the call doesn't return while the line stands;
 *           fail: one call returns EIO, and the control file is removed.
 *   CALL    sync (fsync, fdatasync) or write (pwrite, pwritev).
 *   PATH    a part of the path of the files that are meant, up to the end of the line.
 * Without the file everything works. Each fault adds a line to the file of the same name with
 * ".hit" at its end. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum action { NONE, HANG, FAIL };

static enum action asked_for(const char *call, int fd) {
    const char *control = getenv("DISK_FAULT_CONTROL");
    if (control == NULL) return NONE;
    int file = open(control, O_RDONLY | O_CLOEXEC);
    if (file < 0) return NONE;
    char line[512];
    ssize_t length = read(file, line, sizeof line - 1);
    close(file);
    if (length <= 0) return NONE;
    line[length] = '\0';
    line[strcspn(line, "\n")] = '\0';
    char action[16], what[16];
    int path_at = 0;
    if (sscanf(line, "%15s %15s %n", action, what, &path_at) < 2 || path_at == 0) return NONE;
    if (strcmp(what, call) != 0) return NONE;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return NONE;
    path[length] = '\0';
    if (strstr(path, line + path_at) == NULL) return NONE;
    return strcmp(action, "hang") == 0 ? HANG : strcmp(action, "fail") == 0 ? FAIL : NONE;
}

static void note(const char *call) {
    char path[4096];
    snprintf(path, sizeof path, "%s.hit", getenv("DISK_FAULT_CONTROL"));
    int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (file < 0) return;
    dprintf(file, "%s\n", call);
    close(file);
}

/* Returns whether the call is to fail. */
static int fault(const char *call, int fd) {
    int saved = errno;
    enum action action = asked_for(call, fd);
    int fails = 0;
    if (action == HANG) {
        note(call);
        struct timespec moment = {0, 2 * 1000 * 1000};
        while (asked_for(call, fd) == HANG) nanosleep(&moment, NULL);
    } else if (action == FAIL && unlink(getenv("DISK_FAULT_CONTROL")) == 0) {
        note(call);
        fails = 1;
    }
    errno = fails ? EIO : saved;
    return fails;
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (real == NULL) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

int fsync(int fd) {
    REAL(fsync);
    return fault("sync", fd) ? -1 : real(fd);
}

int fdatasync(int fd) {
    REAL(fdatasync);
    return fault("sync", fd) ? -1 : real(fd);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
    REAL(pwrite);
    return fault("write", fd) ? -1 : real(fd, bytes, count, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    REAL(pwrite64);
    return fault("write", fd) ? -1 : real(fd, bytes, count, offset);
}

ssize_t pwritev(int fd, const struct iovec *pieces, int count, off_t offset) {
    REAL(pwritev);
    return fault("write", fd) ? -1 : real(fd, pieces, count, offset);
}

ssize_t pwritev64(int fd, const struct iovec *pieces, int count, off64_t offset) {
    REAL(pwritev64);
    return fault("write", fd) ? -1 : real(fd, pieces, count, offset);
}
