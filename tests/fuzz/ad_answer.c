/* A controller's answer: a byte of operation, a byte of result code, then the diagnostic text. */
#include <stdlib.h>
#include <string.h>

#include "agent/directory/ad_answer.h"
#include "base/bytes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1), out[128];
	size_t head = size < 2 ? size : 2;
	uint32_t win32;
	if (text == NULL) {
		return 0;
	}
	memcpy(text, data + head, size - head);
	text[size - head] = 0;
	enum status status = ad_answer_status(size > 0 ? data[0] % (AD_VERIFY + 1) : 0, size > 1 ? data[1] : 0, text, &win32);
	ad_answer_text(text, out, 1 + size % sizeof out);
	if (status >= STATUS_COUNT || !utf8_valid(bytes_of_string(out)) || strlen(out) > strlen(text)) {
		abort();
	}
	free(text);
	return 0;
}
