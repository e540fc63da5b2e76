/* writebackd.yaml from anybody: parsed and judged. What is accepted can be asked for all that the start asks for; what is refused says why. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/settings.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const struct settings *settings)
{
	struct limits_settings limits;
	settings_limits(settings, &limits);
	if (settings_directory_count(settings) == 0 || settings_operations(settings) == 0)
		abort();
	(void)settings_log_level(settings);
	for (size_t i = 0; i < settings_directory_count(settings); i++)
		(void)settings_allow(settings_directory_at(settings, i));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static FILE *nowhere;
	struct settings settings = { 0 };
	struct config_errors errors = { 0 };
	if (nowhere == NULL)
		nowhere = fopen("/dev/null", "w");
	AUTO_FREE char *text = strndup((const char *)data, size);
	if (text == NULL)
		return 0;
	enum status status = settings_parse("writebackd.yaml", text, &settings, &errors);
	if ((status == STATUS_OK) != (errors.count == 0))
		abort();
	config_errors_print(&errors, nowhere);
	if (status == STATUS_OK) {
		use(&settings);
		settings_clear(&settings);
	}
	config_errors_clear(&errors);
	return 0;
}
