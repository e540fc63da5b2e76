/* settings_judge: what a table of keys cannot say of writebackd.yaml: names, files and keys that contradict each other. Everything that the start would refuse is found here. */
#ifndef AGENT_SETTINGS_JUDGE_H
#define AGENT_SETTINGS_JUDGE_H

#include "agent/settings.h"

/* One reading of a file: for whom, and the directory that is looked at. */
struct judgement {
	const struct file_reader *reader;
	struct config_errors *errors;
	const struct config_document *document;
	size_t index;                  /* of the directory */
};
/* An error at `member` of the directory, with file and line. */
void find_fault(const struct judgement *judgement, const char *member, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* settings_bind.c: the keys below `bind`. */
void judge_bind(const struct judgement *judgement, const struct settings_directory *directory);

void settings_judge(const struct settings *settings, const struct file_reader *reader, struct config_errors *errors, const struct config_document *document);

#endif
