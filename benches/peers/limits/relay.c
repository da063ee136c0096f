/* The least that any process between a client and QEMU's monitor must do: wait, and hand on what came. */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int hand_on(int from, int to) {
    char bytes[65536];
    ssize_t count = read(from, bytes, sizeof bytes);
    return count > 0 && write(to, bytes, count) == count;
}

int main(int argc, char **argv) {
    struct sockaddr_un own = {.sun_family = AF_UNIX}, monitor = {.sun_family = AF_UNIX};
    struct pollfd ends[2];
    int listening = socket(AF_UNIX, SOCK_STREAM, 0), qemu = socket(AF_UNIX, SOCK_STREAM, 0);
    if (argc != 3 || strlen(argv[1]) >= sizeof own.sun_path || strlen(argv[2]) >= sizeof monitor.sun_path) return 2;
    strcpy(own.sun_path, argv[1]);
    strcpy(monitor.sun_path, argv[2]);
    if (bind(listening, (struct sockaddr *)&own, sizeof own) != 0 || listen(listening, 1) != 0) return 1;
    if (connect(qemu, (struct sockaddr *)&monitor, sizeof monitor) != 0) return 1;
    /* from now on clients can connect */
    puts("ready");
    fclose(stdout);
    ends[0] = (struct pollfd){.fd = accept(listening, NULL, NULL), .events = POLLIN};
    ends[1] = (struct pollfd){.fd = qemu, .events = POLLIN};
    while (poll(ends, 2, -1) > 0) {
        if (ends[0].revents && !hand_on(ends[0].fd, ends[1].fd)) return 0;
        if (ends[1].revents && !hand_on(ends[1].fd, ends[0].fd)) return 0;
    }
    return 1;
}
