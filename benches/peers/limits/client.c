/* The least that any client of a Unix socket must do: connect, write one message, read one answer. */
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char answer[65536];
    ssize_t count;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (argc != 3 || strlen(argv[1]) >= sizeof address.sun_path) return 2;
    strcpy(address.sun_path, argv[1]);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) return 1;
    /* with the 0 at its end, as Varlink wants it */
    if (write(fd, argv[2], strlen(argv[2]) + 1) < 0) return 1;
    do {
        count = read(fd, answer, sizeof answer);
        if (count <= 0) return 1;
    } while (answer[count - 1] != 0);
    return 0;
}
