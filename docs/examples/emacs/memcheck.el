;;; memcheck.el --- run programs under memcheck in a compilation buffer  -*- lexical-binding: t -*-

;; M-x memcheck RET ./program RET, then C-x ` or M-g n.  The lines are those of GNU compilers, which
;; `compilation-mode' knows.

(require 'compile)

(defun memcheck (command)
  "Run COMMAND under memcheck; its findings are errors of the compilation buffer."
  (interactive (list (read-shell-command "Run under memcheck: " "./")))
  (compilation-start (concat "memcheck -q --format=oneline " command)))

(provide 'memcheck)
;;; memcheck.el ends here
