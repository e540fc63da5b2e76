#include "agent/channel/proxy.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/http_upgrade.h"

#define ANSWER_MS 10000

/* Read and written by hand: a bufferevent would leave copies of the credentials in its chains, and might have read bytes of the tunnel. */
struct proxy {
	int fd;
	struct event *event;
	struct secret request;
	size_t sent;
	uint8_t answer[HTTP_HEAD_MAX];
	size_t received, scanned;
	proxy_done done;
	void *arg;
};

static void give(struct proxy *proxy, const struct proxy_result *result)
{
	event_del(proxy->event);
	proxy->done(result, proxy->arg);
}

static void fail(struct proxy *proxy, enum status status, const char *why)
{
	struct proxy_result result = { .status = status, .fd = -1 };
	snprintf(result.why, sizeof result.why, "%s", why);
	give(proxy, &result);
}

static void judge(struct proxy *proxy, size_t head)
{
	struct http_answer answer;
	struct proxy_result result = { .fd = -1 };
	const char *why;
	if (http_answer_parse(bytes_of(proxy->answer, head), &answer, &why) != STATUS_OK) {
		fail(proxy, STATUS_CHANNEL_PROXY_REFUSED, why);
		return;
	}
	result.http_status = answer.status;
	result.retry_after = answer.retry_after;
	snprintf(result.why, sizeof result.why, "the proxy answered HTTP %u %s", answer.status, answer.reason);
	if (answer.status == 407) {
		result.status = STATUS_CHANNEL_PROXY_AUTH;
	} else if (answer.status / 100 != 2) {
		result.status = STATUS_CHANNEL_PROXY_REFUSED;
	} else if (proxy->received > head) {
		/* The server speaks after we do: bytes here are the proxy's own, and would be taken for the server's. */
		result.status = STATUS_CHANNEL_PROXY_REFUSED;
		snprintf(result.why, sizeof result.why, "the proxy sent bytes behind its answer");
	} else {
		result.fd = proxy->fd;
		proxy->fd = -1;
	}
	give(proxy, &result);
}

static void on_readable(struct proxy *proxy)
{
	size_t head = 0;
	ssize_t size = recv(proxy->fd, proxy->answer + proxy->received, sizeof proxy->answer - proxy->received, 0);
	if (size < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (size <= 0) {
		fail(proxy, STATUS_CHANNEL_REFUSED, size ? strerror(errno) : "the proxy ended the connection");
		return;
	}
	proxy->received += (size_t)size;
	switch (http_answer_scan(bytes_of(proxy->answer, proxy->received), &proxy->scanned, &head)) {
	case HTTP_SCAN_MORE:
		return;
	case HTTP_SCAN_BAD:
		fail(proxy, STATUS_CHANNEL_PROXY_REFUSED, "the proxy's answer is not HTTP");
		return;
	case HTTP_SCAN_WHOLE:
		judge(proxy, head);
	}
}

static void on_event(evutil_socket_t fd, short what, void *arg);

static void wait_for(struct proxy *proxy, short what)
{
	struct timeval limit = { ANSWER_MS / 1000, 0 };
	event_del(proxy->event);
	event_assign(proxy->event, event_get_base(proxy->event), proxy->fd, what | EV_PERSIST, on_event, proxy);
	event_add(proxy->event, &limit);
}

static void on_writable(struct proxy *proxy)
{
	ssize_t size = send(proxy->fd, proxy->request.data + proxy->sent, proxy->request.size - proxy->sent, MSG_NOSIGNAL);
	if (size < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (size < 0) {
		fail(proxy, STATUS_CHANNEL_REFUSED, strerror(errno));
		return;
	}
	proxy->sent += (size_t)size;
	if (proxy->sent < proxy->request.size)
		return;
	secret_wipe(&proxy->request);
	wait_for(proxy, EV_READ);
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
	struct proxy *proxy = arg;
	if (what & EV_TIMEOUT)
		fail(proxy, STATUS_CHANNEL_TIMEOUT, "the proxy did not answer in time");
	else if (what & EV_READ)
		on_readable(proxy);
	else
		on_writable(proxy);
}

static enum status append_credentials(const char *username, const struct secret *password, struct secret *request)
{
	AUTO_SECRET struct secret pair = SECRET_EMPTY;
	size_t user = strlen(username), size = user + 1 + password->size;
	enum status status = secret_new(size + 1, &pair);
	if (status != STATUS_OK)
		return status;
	memcpy(pair.data, username, user);
	pair.data[user] = ':';
	if (password->size)
		memcpy(pair.data + user + 1, password->data, password->size);
	static const char name[] = "Proxy-Authorization: Basic ";
	memcpy(request->data + request->size, name, sizeof name - 1);
	request->size += sizeof name - 1;
	request->size += (size_t)EVP_EncodeBlock(request->data + request->size, pair.data, (int)size);
	memcpy(request->data + request->size, "\r\n", 2);
	request->size += 2;
	return STATUS_OK;
}

enum status proxy_request(const char *authority, const char *username, const struct secret *password, struct secret *ret_request)
{
	size_t pair = username ? strlen(username) + 1 + password->size : 0;
	size_t capacity = 200 + 2 * strlen(authority) + (pair + 2) / 3 * 4;
	enum status status = secret_new(capacity, ret_request);
	if (status != STATUS_OK)
		return status;
	ret_request->size = (size_t)snprintf((char *)ret_request->data, capacity, "CONNECT %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: writebackd/" WRITEBACKD_VERSION "\r\n",
	                                     authority, authority);
	if (username && (status = append_credentials(username, password, ret_request)) != STATUS_OK) {
		secret_wipe(ret_request);
		return status;
	}
	memcpy(ret_request->data + ret_request->size, "\r\n", 2);
	ret_request->size += 2;
	return STATUS_OK;
}

enum status proxy_new(struct event_base *base, int take_fd, const char *authority, const char *username, const struct secret *password,
                      proxy_done done, void *arg, struct proxy **ret_proxy)
{
	struct proxy *proxy = calloc(1, sizeof *proxy);
	*ret_proxy = NULL;
	if (!proxy) {
		close(take_fd);
		return STATUS_AGENT_INTERNAL;
	}
	proxy->fd = take_fd;
	proxy->done = done;
	proxy->arg = arg;
	proxy->event = event_new(base, take_fd, EV_WRITE | EV_PERSIST, on_event, proxy);
	if (!proxy->event || proxy_request(authority, username, password, &proxy->request) != STATUS_OK) {
		proxy_free(proxy);
		return STATUS_AGENT_INTERNAL;
	}
	wait_for(proxy, EV_WRITE);
	*ret_proxy = proxy;
	return STATUS_OK;
}

void proxy_free(struct proxy *proxy)
{
	if (!proxy)
		return;
	if (proxy->event)
		event_free(proxy->event);
	secret_wipe(&proxy->request);
	if (proxy->fd >= 0)
		close(proxy->fd);
	free(proxy);
}
