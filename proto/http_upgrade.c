#include "proto/http_upgrade.h"

#include <string.h>
#include <strings.h>

enum http_scan http_answer_scan(struct bytes input, size_t *scanned, size_t *ret_size)
{
	size_t limit = input.size < HTTP_HEAD_MAX ? input.size : HTTP_HEAD_MAX;
	for (size_t i = *scanned; i < limit; i++) {
		uint8_t c = input.data[i];
		bool after_cr = i > 0 && input.data[i - 1] == '\r';
		/* RFC 9112 section 2.2 lets a recipient take a bare LF for a line's end; whoever sits between may not, so we do not. */
		if ((c == '\n') != after_cr || (c < 0x20 && c != '\t' && c != '\r' && c != '\n') || c == 0x7f)
			return HTTP_SCAN_BAD;
		if (c == '\n' && i >= 3 && input.data[i - 2] == '\n') {
			*ret_size = i + 1;
			return HTTP_SCAN_WHOLE;
		}
	}
	*scanned = limit;
	return limit == HTTP_HEAD_MAX ? HTTP_SCAN_BAD : HTTP_SCAN_MORE;
}

static bool is_digit(uint8_t c)
{
	return c >= '0' && c <= '9';
}

/* RFC 9110 section 5.6.2. */
static bool is_token_char(uint8_t c)
{
	return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static struct bytes trim(const uint8_t *data, size_t size)
{
	while (size && (data[0] == ' ' || data[0] == '\t')) {
		data++;
		size--;
	}
	while (size && (data[size - 1] == ' ' || data[size - 1] == '\t'))
		size--;
	return bytes_of(data, size);
}

/* "HTTP/1.1 101 Switching Protocols" */
static bool parse_status_line(const uint8_t *line, size_t size, struct http_answer *answer)
{
	if (size < 12 || memcmp(line, "HTTP/1.", 7) != 0 || !is_digit(line[7]) || line[8] != ' ')
		return false;
	if (!is_digit(line[9]) || !is_digit(line[10]) || !is_digit(line[11]) || (size > 12 && line[12] != ' '))
		return false;
	answer->minor = line[7] - '0';
	answer->status = (line[9] - '0') * 100u + (line[10] - '0') * 10u + (line[11] - '0');
	size_t reason = 0;
	for (size_t i = 13; i < size && reason < sizeof answer->reason - 1; i++)
		answer->reason[reason++] = line[i] >= 0x20 && line[i] < 0x7f ? (char)line[i] : '?';
	answer->reason[reason] = 0;
	return answer->status >= 100 && answer->status < 600;
}

static const char *parse_field(const uint8_t *line, size_t size, struct http_answer *answer)
{
	size_t colon = 0;
	if (line[0] == ' ' || line[0] == '\t')
		return "the answer's header has a folded line";
	while (colon < size && is_token_char(line[colon]))
		colon++;
	if (!colon || colon == size || line[colon] != ':')
		return "the answer's header has a malformed field name";
	if (answer->field_count == HTTP_FIELDS_MAX)
		return "the answer's header has too many fields";
	answer->fields[answer->field_count++] = (struct http_field){ bytes_of(line, colon), trim(line + colon + 1, size - colon - 1) };
	return NULL;
}

static bool equals_without_case(struct bytes value, const char *text)
{
	return value.size == strlen(text) && strncasecmp((const char *)value.data, text, value.size) == 0;
}

/* How many fields have this name; `ret_value` (may be NULL) gets the first one's value. */
static size_t find_field(const struct http_answer *answer, const char *name, struct bytes *ret_value)
{
	size_t found = 0;
	for (size_t i = 0; i < answer->field_count; i++) {
		if (!equals_without_case(answer->fields[i].name, name))
			continue;
		if (found++ == 0 && ret_value)
			*ret_value = answer->fields[i].value;
	}
	return found;
}

/* RFC 9110 section 10.2.3: delay-seconds; a date is ignored, since it would need a clock that both sides share. */
static unsigned parse_retry_after(const struct http_answer *answer)
{
	struct bytes value;
	unsigned seconds = 0;
	if (find_field(answer, "Retry-After", &value) != 1)
		return 0;
	for (size_t i = 0; i < value.size; i++) {
		if (!is_digit(value.data[i]))
			return 0;
		seconds = seconds * 10 + (value.data[i] - '0');
		if (seconds > HTTP_RETRY_AFTER_MAX)
			seconds = HTTP_RETRY_AFTER_MAX;
	}
	return seconds;
}

enum status http_answer_parse(struct bytes head, struct http_answer *ret_answer, const char **ret_why)
{
	size_t scanned = 0, size = 0, line = 0;
	memset(ret_answer, 0, sizeof *ret_answer);
	if (http_answer_scan(head, &scanned, &size) != HTTP_SCAN_WHOLE || size != head.size) {
		*ret_why = "the answer is not an HTTP header";
		return STATUS_CHANNEL_HTTP;
	}
	for (size_t i = 0; i + 2 < size; i++) {
		if (head.data[i] != '\r')
			continue;
		if (line == 0 && !parse_status_line(head.data, i, ret_answer)) {
			*ret_why = "the answer has no HTTP/1 status line";
			return STATUS_CHANNEL_HTTP;
		}
		if (line > 0 && (*ret_why = parse_field(head.data + line, i - line, ret_answer)))
			return STATUS_CHANNEL_HTTP;
		line = i + 2;
	}
	ret_answer->retry_after = parse_retry_after(ret_answer);
	*ret_why = "";
	return STATUS_OK;
}

static bool equals(struct bytes value, const char *text)
{
	return value.size == strlen(text) && memcmp(value.data, text, value.size) == 0;
}

/* Whether a comma-separated list holds `token`. */
static bool list_has(struct bytes list, const char *token)
{
	for (size_t start = 0, i = 0; i <= list.size; i++) {
		if (i < list.size && list.data[i] != ',')
			continue;
		if (equals_without_case(trim(list.data + start, i - start), token))
			return true;
		start = i + 1;
	}
	return false;
}

static bool connection_upgrades(const struct http_answer *answer)
{
	for (size_t i = 0; i < answer->field_count; i++)
		if (equals_without_case(answer->fields[i].name, "Connection") && list_has(answer->fields[i].value, "Upgrade"))
			return true;
	return false;
}

static const char *why_not_a_websocket(const struct http_answer *answer, const char *accept, const char *subprotocol)
{
	struct bytes value;
	if (answer->minor != 1)
		return "101 in HTTP/1.0";
	if (find_field(answer, "Upgrade", &value) != 1 || !equals_without_case(value, "websocket"))
		return "101 without 'Upgrade: websocket'";
	if (!connection_upgrades(answer))
		return "101 without 'Connection: Upgrade'";
	if (find_field(answer, "Sec-WebSocket-Accept", &value) != 1 || !equals(value, accept))
		return "101 with a wrong Sec-WebSocket-Accept";
	if (find_field(answer, "Sec-WebSocket-Protocol", &value) != 1 || !equals(value, subprotocol))
		return "101 that does not select the subprotocol";
	if (find_field(answer, "Sec-WebSocket-Extensions", NULL))
		return "101 with an extension that was not offered";
	/* RFC 9110 section 8.6 and RFC 9112 section 6.1: neither may stand in a 1xx, and a body would be read as frames. */
	if (find_field(answer, "Transfer-Encoding", NULL) || find_field(answer, "Content-Length", NULL))
		return "101 with a body";
	return NULL;
}

enum status http_upgrade_judge(const struct http_answer *answer, const char *accept, const char *subprotocol, const char **ret_why)
{
	*ret_why = "";
	switch (answer->status) {
	case 101:
		*ret_why = why_not_a_websocket(answer, accept, subprotocol);
		if (*ret_why)
			return STATUS_CHANNEL_HTTP;
		*ret_why = "";
		return STATUS_OK;
	case 401:
	case 403:
		*ret_why = "the upgrade was refused";
		return STATUS_CHANNEL_REJECTED;
	default:
		*ret_why = answer->status / 100 == 3 ? "the upgrade was redirected, which is not followed" : "the upgrade was not answered with 101";
		return STATUS_CHANNEL_HTTP;
	}
}
