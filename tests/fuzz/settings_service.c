/* reset-service.yaml from anybody: loaded and judged. What is accepted has an address to listen on and endpoints to tell. */
#include <string.h>

#include "service/settings.h"
#include "tests/fuzz/memory_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static FILE *nowhere;
	FILE *errors = stderr;
	struct settings settings;
	struct config_document *document = NULL;
	if (nowhere == NULL)
		nowhere = fopen("/dev/null", "w");
	stderr = nowhere; /* the findings are printed there */
	enum status status = settings_load(memory_file(data, size), &settings, &document);
	stderr = errors;
	if (status == STATUS_OK && (settings.listen_host == NULL || settings.listen_port > 65535 || settings.channel_endpoints.count == 0 || settings.enrollment_endpoint == NULL))
		abort();
	if (status == STATUS_OK) {
		(void)settings_log_level(&settings);
		config_document_free(document);
	}
	settings_clear(&settings);
	return 0;
}
