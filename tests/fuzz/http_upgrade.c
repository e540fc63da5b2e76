/* The answer to an upgrade or a CONNECT, whole and one byte at a time: both must say the same. */
#include <stdlib.h>

#include "proto/http_upgrade.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum http_scan scan_piecemeal(const uint8_t *data, size_t size, size_t *ret_head)
{
	size_t scanned = 0;
	enum http_scan result = HTTP_SCAN_MORE;
	for (size_t i = 0; i <= size && result == HTTP_SCAN_MORE; i++)
		result = http_answer_scan(bytes_of(data, i), &scanned, ret_head);
	return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct http_answer answer;
	size_t scanned = 0, head = 0, head_again = 0;
	const char *why = NULL;
	enum http_scan result = http_answer_scan(bytes_of(data, size), &scanned, &head);
	if (result != scan_piecemeal(data, size, &head_again) || (result == HTTP_SCAN_WHOLE && (head != head_again || head > size)))
		abort();
	if (result != HTTP_SCAN_WHOLE)
		return 0;
	if (http_answer_parse(bytes_of(data, head), &answer, &why) == STATUS_OK) {
		if (answer.retry_after > HTTP_RETRY_AFTER_MAX || answer.status < 100 || answer.status > 599)
			abort();
		(void)!http_upgrade_judge(&answer, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "writeback.v1", &why);
	}
	if (!why)
		abort();
	return 0;
}
