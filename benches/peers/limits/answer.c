/* The least that any service on a Unix socket must do: wait for a message, and write an answer that it has at hand. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct sockaddr_un own = {.sun_family = AF_UNIX};
    char message[65536];
    ssize_t count;
    int client, listening = socket(AF_UNIX, SOCK_STREAM, 0);
    if (argc != 3 || strlen(argv[1]) >= sizeof own.sun_path) return 2;
    strcpy(own.sun_path, argv[1]);
    if (bind(listening, (struct sockaddr *)&own, sizeof own) != 0 || listen(listening, 1) != 0) return 1;
    /* from now on clients can connect */
    puts("ready");
    fclose(stdout);
    client = accept(listening, NULL, NULL);
    while ((count = read(client, message, sizeof message)) > 0) {
        /* with the 0 at its end, as Varlink wants it */
        if (message[count - 1] == 0 && write(client, argv[2], strlen(argv[2]) + 1) < 0) return 1;
    }
    return 0;
}
