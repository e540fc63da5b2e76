#include "agent/ctl/agent_call.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/secret.h"
#include "proto/jose.h"

#define ANSWER_MAX 65536
#define TIMEOUT_S 60

static enum status connect_to(const char *path, int *ret_fd)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof address.sun_path)
		return STATUS_LOCAL_INPUT;
	strcpy(address.sun_path, path);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return STATUS_LOCAL_SYSTEM;
	struct timeval timeout = { TIMEOUT_S, 0 };
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
	if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) {
		*ret_fd = fd;
		return STATUS_OK;
	}
	enum status status = errno == EACCES || errno == EPERM ? STATUS_LOCAL_PERMISSION : STATUS_CHANNEL_REFUSED;
	close(fd);
	return status;
}

enum status agent_call(const char *socket_path, json_t *take_input, json_t **ret_answer)
{
	int fd = -1;
	char *text = json_dumps(take_input, JSON_COMPACT);
	json_decref(take_input);
	if (!text)
		return STATUS_AGENT_INTERNAL;
	enum status status = connect_to(socket_path, &fd);
	static char answer[ANSWER_MAX + 1];
	ssize_t size = -1;
	if (status == STATUS_OK && send(fd, text, strlen(text), MSG_NOSIGNAL) > 0)
		size = recv(fd, answer, sizeof answer, 0);
	if (status == STATUS_OK && size <= 0)
		status = size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? STATUS_CHANNEL_TIMEOUT : STATUS_CHANNEL_CLOSED;
	if (fd >= 0)
		close(fd);
	wipe(text, strlen(text));
	free(text);
	if (status != STATUS_OK)
		return status;
	*ret_answer = size <= ANSWER_MAX ? jose_json_parse(bytes_of(answer, size)) : NULL;
	return json_is_object(*ret_answer) ? STATUS_OK : STATUS_LOCAL_INPUT;
}
