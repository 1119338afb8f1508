" :compiler memcheck | make ./program     then :cnext, :copen
" Copy to ~/.vim/compiler/memcheck.vim.
if exists("current_compiler")
  finish
endif
let current_compiler = "memcheck"
if exists(":CompilerSet") != 2
  command -nargs=* CompilerSet setlocal <args>
endif
CompilerSet makeprg=memcheck\ -q\ --format=oneline
CompilerSet errorformat=%f:%l:%c:\ %trror:\ %m,%f:%l:\ %trror:\ %m,%f:%l:%c:\ %tote:\ %m,%f:%l:\ %tote:\ %m,%-G%.%#
