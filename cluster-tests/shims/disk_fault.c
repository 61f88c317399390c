/* Preloaded into a node: makes its writes, syncs and renames hang, fail or take long as a control file
 * says.
 *
 * The file that DISK_FAULT_CONTROL names holds one line, "ACTION CALL PATH":
 *   ACTION  hang: the call doesn't return while the line stands;
 *           slow: each call takes 50 ms longer;
 *           fail: one call returns EIO, and the control file is removed;
 *           away-N: from the Nth call on, counted from 1, each returns EIO while the line stands.
 *   CALL    sync (fsync, fdatasync), write (pwrite, pwritev), or any: these, and write, rename and
 *           unlink.
 *   PATH    a part of the path of the files that are meant, up to the end of the line.
 * Without the file everything works. Each fault adds a line to the file of the same name with
 * ".hit" at its end. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum action { NONE, HANG, SLOW, FAIL, AWAY };

struct order {
    enum action action;
    unsigned long from;
    /* Which order it is: the file is replaced whole. */
    struct stat file;
};

static struct order asked_for(const char *call, const char *path) {
    struct order order = {.action = NONE};
    const char *control = getenv("DISK_FAULT_CONTROL");
    if (control == NULL) return order;
    int file = open(control, O_RDONLY | O_CLOEXEC);
    if (file < 0) return order;
    char line[512];
    ssize_t length = read(file, line, sizeof line - 1);
    int known = fstat(file, &order.file);
    close(file);
    if (length <= 0 || known != 0) return order;
    line[length] = '\0';
    line[strcspn(line, "\n")] = '\0';
    char action[32], what[16];
    int path_at = 0;
    if (sscanf(line, "%31s %15s %n", action, what, &path_at) < 2 || path_at == 0) return order;
    int is_other = strcmp(call, "sync") != 0 && strcmp(call, "write") != 0;
    if (strcmp(what, "any") != 0 && (is_other || strcmp(what, call) != 0)) return order;
    if (strstr(path, line + path_at) == NULL) return order;
    if (strcmp(action, "hang") == 0) order.action = HANG;
    if (strcmp(action, "slow") == 0) order.action = SLOW;
    if (strcmp(action, "fail") == 0) order.action = FAIL;
    if (sscanf(action, "away-%lu", &order.from) == 1) order.action = AWAY;
    return order;
}

static void note(const char *call) {
    char path[4096];
    snprintf(path, sizeof path, "%s.hit", getenv("DISK_FAULT_CONTROL"));
    int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (file < 0) return;
    dprintf(file, "%s\n", call);
    close(file);
}

/* Whether the store is away for this call, the next one of this order. */
static int is_away(const struct order *order) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct stat counted;
    static unsigned long calls;
    pthread_mutex_lock(&lock);
    if (counted.st_ino != order->file.st_ino ||
        counted.st_mtim.tv_sec != order->file.st_mtim.tv_sec ||
        counted.st_mtim.tv_nsec != order->file.st_mtim.tv_nsec) {
        counted = order->file;
        calls = 0;
    }
    int away = ++calls >= order->from;
    pthread_mutex_unlock(&lock);
    return away;
}

/* Returns whether the call is to fail. */
static int fault_at(const char *call, const char *path) {
    int saved = errno;
    struct timespec moment = {0, 2 * 1000 * 1000}, slow = {0, 50 * 1000 * 1000};
    struct order order = asked_for(call, path);
    int fails = 0;
    switch (order.action) {
    case NONE: break;
    case HANG:
        note(call);
        while (asked_for(call, path).action == HANG) nanosleep(&moment, NULL);
        break;
    case SLOW:
        note(call);
        nanosleep(&slow, NULL);
        break;
    case FAIL: fails = unlink(getenv("DISK_FAULT_CONTROL")) == 0; break;
    case AWAY: fails = is_away(&order); break;
    }
    if (fails) note(call);
    errno = fails ? EIO : saved;
    return fails;
}

static int fault(const char *call, int fd) {
    int saved = errno;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = saved;
    if (length <= 0) return 0;
    path[length] = '\0';
    return fault_at(call, path);
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

/* Named apart: those who ask for faults of "write" mean files that are written at a position. */
ssize_t write(int fd, const void *bytes, size_t count) {
    REAL(write);
    return fault("append", fd) ? -1 : real(fd, bytes, count);
}

int rename(const char *from, const char *to) {
    REAL(rename);
    return fault_at("rename", to) ? -1 : real(from, to);
}

int unlink(const char *path) {
    REAL(unlink);
    return fault_at("unlink", path) ? -1 : real(path);
}
