/* Stop every call on files of a process, its threads and its children, and let the supervisor decide what it does.

   A seccomp filter with user notification (Linux 5.9) sees the calls of libhdf5, numpy, TensorFlow and Python alike, also
   those that the C library makes inside itself, which preloaded functions would miss. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif
#define NOTIFIED 1024 /* bytes; more than the kernel's structures have */
#define SHORT -1      /* an answer of the supervisor: half of the bytes are written */

/* Where a call has its file: a descriptor, a path, or a path below an open folder; numbers of arguments, -1 for none. */
struct call { int number; char kind; int descriptor, folder, path, to_folder, to_path, size; };
static const struct call calls[] = {
    {SYS_write, 'w', 0, -1, -1, -1, -1, 2},
    {SYS_pwrite64, 'p', 0, -1, -1, -1, -1, 2},
    {SYS_writev, 'v', 0, -1, -1, -1, -1, -1},
    {SYS_pwritev, 'v', 0, -1, -1, -1, -1, -1},
    {SYS_pwritev2, 'v', 0, -1, -1, -1, -1, -1},
    {SYS_sendfile, 'v', 0, -1, -1, -1, -1, -1},
    {SYS_copy_file_range, 'v', 2, -1, -1, -1, -1, -1},
    {SYS_fsync, 's', 0, -1, -1, -1, -1, -1},
    {SYS_fdatasync, 's', 0, -1, -1, -1, -1, -1},
    {SYS_syncfs, 'S', 0, -1, -1, -1, -1, -1},
    {SYS_sync, 'S', -1, -1, -1, -1, -1, -1},
    {SYS_ftruncate, 't', 0, -1, -1, -1, -1, 1},
    {SYS_fallocate, 'a', 0, -1, -1, -1, -1, 3},
    {SYS_mmap, 'm', 4, -1, -1, -1, -1, 1},
    {SYS_openat, 'o', -1, 0, 1, -1, -1, 2},
    {SYS_renameat, 'r', -1, 0, 1, 2, 3, -1},
    {SYS_renameat2, 'r', -1, 0, 1, 2, 3, -1},
    {SYS_linkat, 'l', -1, 0, 1, 2, 3, -1},
    {SYS_symlinkat, 'l', -1, 1, 2, -1, -1, -1},
    {SYS_unlinkat, 'u', -1, 0, 1, -1, -1, -1},
    {SYS_mkdirat, 'd', -1, 0, 1, -1, -1, -1},
    {SYS_truncate, 't', -1, -1, 0, -1, -1, 1},
#ifdef SYS_open /* x86-64 has the older calls as well */
    {SYS_open, 'o', -1, -1, 0, -1, -1, 1},
    {SYS_creat, 'o', -1, -1, 0, -1, -1, -1},
    {SYS_rename, 'r', -1, -1, 0, -1, 1, -1},
    {SYS_link, 'l', -1, -1, 0, -1, 1, -1},
    {SYS_symlink, 'l', -1, -1, 1, -1, -1, -1},
    {SYS_unlink, 'u', -1, -1, 0, -1, -1, -1},
    {SYS_rmdir, 'u', -1, -1, 0, -1, -1, -1},
    {SYS_mkdir, 'd', -1, -1, 0, -1, -1, -1},
#endif
};
#define CALLS (int)(sizeof calls / sizeof *calls)

/* Filter the calls of this thread and of all that it starts; the descriptor of the listener, or -1. */
int install(void) {
    struct sock_filter filter[2 * CALLS + 8];
    int size = 0;
#define ADD(statement) filter[size++] = (struct sock_filter)statement
    ADD(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)));
    for (int i = 0; i < CALLS; i++) {
        if (calls[i].number == SYS_mmap) { /* of memory without a file there are too many */
            ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 0, 4));
            ADD(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[3])));
            ADD(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, MAP_ANONYMOUS, 0, 1));
            ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
        } else {
            ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i].number, 0, 1));
        }
        ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF));
    }
    ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    struct sock_fprog program = {size, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return -1;
    unsigned long flags = SECCOMP_FILTER_FLAG_NEW_LISTENER;
    int listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, &program);
    if (listener < 0 && errno == EINVAL) listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
    return listener;
}

/* The path behind a link of /proc, such as that of a descriptor. */
static void linked(char *path, int thread, const char *what, int descriptor) {
    char name[64];
    if (descriptor < 0) snprintf(name, sizeof name, "/proc/%d/%s", thread, what);
    else snprintf(name, sizeof name, "/proc/%d/%s/%d", thread, what, descriptor);
    ssize_t length = readlink(name, path, 4096);
    path[length < 0 ? 0 : length] = 0;
}

/* The path at an address of the thread, made absolute. */
static void addressed(char *path, int thread, unsigned long long address, int folder) {
    char text[4097];
    size_t size = 0;
    while (size < 4096) { /* up to the end of a page: the next one may not be there */
        struct iovec here = {text + size, 4096 - ((address + size) & 4095)}, there = {(void *)(address + size), 0};
        if (here.iov_len > 4096 - size) here.iov_len = 4096 - size;
        there.iov_len = here.iov_len;
        ssize_t got = process_vm_readv(thread, &here, 1, &there, 1, 0);
        if (got <= 0) break;
        size += got;
        if (memchr(text + size - got, 0, got)) break;
    }
    text[size] = 0;
    if (text[0] == '/') { strcpy(path, text); return; }
    if (folder == AT_FDCWD) linked(path, thread, "cwd", -1);
    else linked(path, thread, "fd", folder);
    size_t before = strlen(path);
    snprintf(path + before, 8200 - before, "/%s", text);
}

/* Do half of a write in place of the thread, with its own open file; the bytes written or -errno. */
static long write_half(const struct seccomp_notif *asked) {
    char name[64], line[256];
    int process = asked->pid;
    snprintf(name, sizeof name, "/proc/%d/status", asked->pid);
    FILE *status = fopen(name, "r");
    while (status && fgets(line, sizeof line, status)) sscanf(line, "Tgid: %d", &process);
    if (status) fclose(status);
    int holder = syscall(SYS_pidfd_open, process, 0);
    int file = syscall(SYS_pidfd_getfd, holder, (int)asked->data.args[0], 0);
    size_t size = asked->data.args[2] / 2;
    char *content = malloc(size);
    struct iovec here = {content, size}, there = {(void *)asked->data.args[1], size};
    ssize_t got = process_vm_readv(asked->pid, &here, 1, &there, 1, 0);
    long done = got < 0                               ? got
                : asked->data.nr == SYS_pwrite64 ? pwrite(file, content, got, asked->data.args[3])
                                                      : write(file, content, got);
    if (done < 0) done = -errno;
    free(content);
    close(file);
    close(holder);
    return done;
}

/* Answer all calls until no thread is left: `decide` returns 0 to let one be made, an error number, or SHORT. */
void supervise(int listener, int (*decide)(char, int, int, long, const char *, const char *)) {
    struct seccomp_notif *asked = malloc(NOTIFIED);
    struct seccomp_notif_resp *answer = malloc(NOTIFIED);
    static _Thread_local char path[8300], other[8300];
    for (;;) {
        struct pollfd ready = {listener, POLLIN, 0};
        if (poll(&ready, 1, -1) < 0 && errno == EINTR) continue;
        if (!(ready.revents & POLLIN)) break;
        memset(asked, 0, NOTIFIED);
        memset(answer, 0, NOTIFIED);
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, asked)) continue;
        const struct call *call = calls;
        while (call->number != asked->data.nr) call++;
        const unsigned long long *arguments = (const unsigned long long *)asked->data.args;
        path[0] = other[0] = 0;
        if (call->descriptor >= 0) linked(path, asked->pid, "fd", (int)arguments[call->descriptor]);
        if (call->path >= 0)
            addressed(path, asked->pid, arguments[call->path], call->folder < 0 ? AT_FDCWD : (int)arguments[call->folder]);
        if (call->to_path >= 0)
            addressed(other, asked->pid, arguments[call->to_path], call->to_folder < 0 ? AT_FDCWD : (int)arguments[call->to_folder]);
        int file = call->descriptor < 0 ? -1 : (int)arguments[call->descriptor];
        char kind = call->kind;
        if (kind == 'o' && call->size >= 0 && !(arguments[call->size] & (O_ACCMODE | O_CREAT))) kind = 'i';
        int decided = decide(kind, asked->pid, file, call->size < 0 ? -1 : (long)arguments[call->size], path, other);
        answer->id = asked->id;
        if (decided == SHORT) answer->val = write_half(asked);
        if (answer->val < 0) decided = -answer->val, answer->val = 0;
        if (decided > 0) answer->error = -decided;
        if (!decided) answer->flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, answer);
    }
    free(asked);
    free(answer);
}
