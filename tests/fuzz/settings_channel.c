/* channel.yaml from anybody: loaded and judged. What is accepted has addresses to dial. */
#include <string.h>

#include "agent/channel/settings.h"
#include "tests/fuzz/memory_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static FILE *nowhere;
	struct config_errors errors = { 0 };
	struct config_document *document = NULL;
	if (nowhere == NULL) {
		nowhere = fopen("/dev/null", "w");
		/* The system's store is large, and not what is tried here. */
		setenv("SSL_CERT_FILE", "/dev/null", 1);
		setenv("SSL_CERT_DIR", "/nonexistent", 1);
	}
	struct settings *settings = settings_load(memory_file(data, size), &errors, &document);
	if ((settings != NULL) != (errors.count == 0))
		abort();
	config_errors_print(&errors, nowhere);
	for (size_t i = 0; settings != NULL && i < settings->endpoint_urls.count; i++)
		if (settings->endpoints[i].port == 0)
			abort();
	if (settings != NULL && (settings->tls == NULL || (settings->proxy_address != NULL) != (settings->proxy.port != 0)))
		abort();
	if (settings != NULL)
		(void)settings_log_level(settings);
	settings_free(settings);
	config_document_free(document);
	config_errors_clear(&errors);
	return 0;
}
